/* SPDX-License-Identifier: GPL-2.0-only */
/* For route_bench: who sent a packet, by its socket's cookie, at TC egress: as was published. */
#include <uapi/linux/bpf.h>

struct sender {
	u64 pid;
	char name[16];
};

BPF_HASH(senders, u64, struct sender, 10240);

int remember(struct bpf_sock *socket)
{
	u64 cookie = bpf_get_socket_cookie(socket);
	struct sender sender = { .pid = bpf_get_current_pid_tgid() >> 32 };

	bpf_get_current_comm(&sender.name, sizeof(sender.name));
	senders.update(&cookie, &sender);
	return 1;
}

int tell(struct __sk_buff *skb)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	struct sender *sender = senders.lookup(&cookie);

	return sender && sender->pid == ~0ull ? 2 : -1;  /* never TC_ACT_SHOT: so that it is looked at */
}
