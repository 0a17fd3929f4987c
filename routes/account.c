/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What each process sends by one interface, led or not: counted by the sockets' cookies at TC egress, or where
 * that has no links (before Linux 6.6) at the root of control groups, which sees what sockets send and no more.
 */
#include <uapi/linux/bpf.h>

#include "typed.h"

#define PROGRAM_NAME 16      /* TASK_COMM_LEN */
#define SOCKETS_MAX 65536    /* that are counted at once */
#define GO_ON (-1)           /* TC_ACT_UNSPEC: others decide */

/* Who made a socket, when and where. */
struct maker {
	char name[PROGRAM_NAME];
	u32 pid;
	u32 uid;
	u64 made;     /* nanoseconds since the boot, with those in which the machine slept */
	u64 netns;    /* cookie of the network namespace */
};

/* What a socket sent; no maker for one that was made before. */
struct sent {
	struct maker maker;
	u64 packets;
	u64 bytes;
};

/* An interface: the same index is another one in another network namespace. */
struct interface {
	u64 netns;
	u32 index;
	u32 zero;
};

SOCKET_STORAGE(makers, struct maker, BPF_F_CLONE);
BPF_TABLE("lru_hash", u64, struct sent, sent_by, SOCKETS_MAX);
BPF_ARRAY(counted, struct interface, 1);

int account_made(struct bpf_sock *socket)
{
	struct maker *maker = makers.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (maker) {
		bpf_get_current_comm(&maker->name, sizeof(maker->name));
		maker->uid = bpf_get_current_uid_gid();
		maker->pid = bpf_get_current_pid_tgid() >> 32;
		maker->made = bpf_ktime_get_boot_ns();
		maker->netns = bpf_get_netns_cookie(socket);
	}
	return 1;
}

/* Who made a packet's socket. The second packet of a handshake is of the socket that listens. */
static __always_inline struct maker *maker_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk, *whole;

	if (!sk)
		return NULL;
	whole = bpf_sk_fullsock(sk);
	if (!whole)
		whole = bpf_get_listener_sock(sk);
	return whole ? makers.sk_storage_get(whole, 0, 0) : NULL;
}

static __always_inline void count(struct __sk_buff *skb, const struct maker *maker, u32 bytes)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	struct sent *sent = sent_by.lookup(&cookie), new = {};

	if (!sent)
		sent = sent_by.lookup_or_try_init(&cookie, &new);
	if (!sent)
		return;
	if (maker && !sent->maker.pid)
		sent->maker = *maker;
	__sync_fetch_and_add(&sent->packets, skb->gso_segs ? skb->gso_segs : 1);
	__sync_fetch_and_add(&sent->bytes, bytes);
}

/* What goes out as several packets has the headers of each in its length on the wire. */
int account_at_tc(struct __sk_buff *skb)
{
	count(skb, maker_of(skb), skb->wire_len);
	return GO_ON;
}

int account_at_group(struct __sk_buff *skb)
{
	u32 only = 0;
	struct interface *interface = counted.lookup(&only);
	const struct maker *maker = maker_of(skb);

	if (interface && interface->index == skb->ifindex &&
	    (!maker || maker->netns == interface->netns))
		count(skb, maker, skb->len);
	return 1;
}
