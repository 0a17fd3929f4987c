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

/* Who made a socket. */
struct maker {
	char name[PROGRAM_NAME];
	u32 pid;
	u32 uid;
};

/* What a socket sent; no maker for one that was made before. */
struct sent {
	struct maker maker;
	u64 packets;
	u64 bytes;
};

SOCKET_STORAGE(makers, struct maker, BPF_F_CLONE);
BPF_TABLE("lru_hash", u64, struct sent, sent_by, SOCKETS_MAX);
BPF_ARRAY(counted, u32, 1);  /* the index of the interface */

int account_made(struct bpf_sock *socket)
{
	struct maker *maker = makers.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (maker) {
		bpf_get_current_comm(&maker->name, sizeof(maker->name));
		maker->uid = bpf_get_current_uid_gid();
		maker->pid = bpf_get_current_pid_tgid() >> 32;
	}
	return 1;
}

static __always_inline void count(struct __sk_buff *skb)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	struct sent *sent = sent_by.lookup(&cookie), new = {};
	struct bpf_sock *sk = skb->sk;
	struct maker *maker = NULL;

	if (!sent)
		sent = sent_by.lookup_or_try_init(&cookie, &new);
	if (!sent)
		return;
	if (!sent->maker.pid && sk)
		sk = bpf_sk_fullsock(sk);  /* one that a handshake is under way for is none yet */
	if (!sent->maker.pid && sk)
		maker = makers.sk_storage_get(sk, 0, 0);
	if (maker)
		sent->maker = *maker;
	__sync_fetch_and_add(&sent->packets, skb->gso_segs ? skb->gso_segs : 1);
	__sync_fetch_and_add(&sent->bytes, skb->len);
}

int account_at_tc(struct __sk_buff *skb)
{
	count(skb);
	return GO_ON;
}

int account_at_group(struct __sk_buff *skb)
{
	u32 only = 0, *ifindex = counted.lookup(&only);

	if (ifindex && *ifindex == skb->ifindex)
		count(skb);
	return 1;
}
