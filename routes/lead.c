/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The programs of a route, at its control group: each socket that is made there is marked, so that its packets
 * take the route's table; and each packet leaves by the route's interface and from one of its addresses, or
 * not at all. Control groups see a packet where the sending socket gives it to the network, so what a tunnel
 * makes of it is not seen again.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>

#include "lead.h"
#include "typed.h"

#define LOOPBACK 1
#define DNS_PORT htons(53)
#define MPTCP 262               /* IPPROTO_MPTCP, linux/in.h */
#define IPV4_SOURCE 12          /* bytes before it in a header */
#define IPV4_DESTINATION 16
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24
#define NO_PROTOCOL (-93)       /* -EPROTONOSUPPORT: programs fall back to TCP */
#define NO_NETWORK (-101)       /* -ENETUNREACH: programs go on with the next address at once */

/* Two, of which one is the truth, so that a change is seen whole. */
BPF_ARRAY(policies, struct policy, 2);
BPF_ARRAY(chosen, u32, 1);
SOCKET_STORAGE(sockets, struct led, BPF_F_CLONE);
BPF_TABLE("lru_hash", u32, struct process, processes, PROCESSES_MAX);
BPF_F_TABLE("lpm_trie", struct lan, u8, lans, LANS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct source, u8, further, FURTHER_MAX, BPF_F_NO_PREALLOC);
BPF_ARRAY(refusals, u64, WHYS);  /* of all processes, also those that are forgotten */

static __always_inline struct policy *policy_now(void)
{
	u32 only = 0, which;
	u32 *number = chosen.lookup(&only);

	if (!number)
		return NULL;
	which = *(volatile u32 *)number & 1;
	return policies.lookup(&which);
}

/* The entry of the process that runs; of nobody, where there is no memory. */
static __always_inline struct process *this_process(u32 pid)
{
	struct process *found = processes.lookup(&pid), new = {};

	if (found)
		return found;
	new.uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(&new.name, sizeof(new.name));
	return processes.lookup_or_try_init(&pid, &new);
}

/* The same of a process that may have ended: it has no name then. */
static __always_inline struct process *that_process(u32 pid)
{
	struct process *found = processes.lookup(&pid), new = {};

	return found ? found : processes.lookup_or_try_init(&pid, &new);
}

/* Count what is refused; 0, which is a refusal at every hook. */
static __always_inline int refuse(struct process *process, enum why why)
{
	u32 reason = why;
	u64 *count = refusals.lookup(&reason);

	if (count)
		__sync_fetch_and_add(count, 1);
	if (process)
		__sync_fetch_and_add(&process->refused[why], 1);
	return 0;
}

static __always_inline struct led *led_socket(struct bpf_sock *sk)
{
	return sk ? sockets.sk_storage_get(sk, 0, 0) : NULL;
}

int route_made(struct bpf_sock *socket)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct process *process = this_process(pid);
	struct policy *policy = policy_now();
	struct led *led;

	if (!policy || !policy->mark)
		return 0;
	if (bpf_get_netns_cookie(socket) != policy->netns)
		return policy->flags & ROUTE_OTHER_NETNS ? 1 : refuse(process, WHY_NETNS);
	if (socket->protocol == MPTCP) {
		bpf_set_retval(NO_PROTOCOL);
		return refuse(process, WHY_MPTCP);
	}
	led = sockets.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!led)
		return 0;
	led->maker = pid;
	led->cookie = bpf_get_socket_cookie(socket);
	socket->mark = policy->mark;
	if (process)
		__sync_fetch_and_add(&process->opened, 1);
	return 1;
}

int route_closed(struct bpf_sock *socket)
{
	struct led *led = sockets.sk_storage_get(socket, 0, 0);
	struct process *process;
	u32 pid;

	if (!led || led->cookie != bpf_get_socket_cookie(socket))
		return 1;
	pid = led->maker;
	process = processes.lookup(&pid);
	if (process)
		__sync_fetch_and_add(&process->closed, 1);
	return 1;
}

/* 1 for zero, else 0: without a branch, as the verifier would follow each way through all addresses. */
static __always_inline u64 is_zero(u32 value)
{
	u64 less = (u64)value - 1;

	asm volatile("" : "+r"(less));
	return less >> 63;
}

static __always_inline bool has_ipv4(const struct policy *policy, u32 source)
{
	u64 found = 0;

#pragma unroll
	for (u32 n = 0; n < ADDRESSES_MAX; n++)
		found |= is_zero(source ^ policy->from4[n]);
	return found && source;
}

/* Link-local addresses reach nobody but the interface's own neighbours. */
static __always_inline bool has_ipv6(const struct policy *policy, const u32 *source)
{
	u64 found = is_zero((source[0] & htonl(0xffc00000)) ^ htonl(0xfe800000));

#pragma unroll
	for (u32 n = 0; n < ADDRESSES_MAX; n++) {
		const u32 *own = policy->from6[n];

		found |= is_zero((source[0] ^ own[0]) | (source[1] ^ own[1]) | (source[2] ^ own[2]) |
				 (source[3] ^ own[3]));
	}
	return found && (source[0] | source[1] | source[2] | source[3]);
}

static __always_inline bool own_source(struct __sk_buff *skb, const struct policy *policy)
{
	struct source source = {};
	u32 *words = source.words;

	if (skb->protocol == htons(ETH_P_IP)) {
		words[2] = htonl(0xffff);
		if (bpf_skb_load_bytes(skb, IPV4_SOURCE, &words[3], 4))
			return false;
		if (has_ipv4(policy, words[3]))
			return true;
	} else {
		if (bpf_skb_load_bytes(skb, IPV6_SOURCE, words, 16))
			return false;
		if (has_ipv6(policy, words))
			return true;
	}
	return policy->flags & ROUTE_FURTHER && further.lookup(&source);
}

/* Is a packet for one of this host's own networks, where those are not led? */
static __always_inline bool to_lan(struct __sk_buff *skb, const struct policy *policy)
{
	struct lan to = { .bits = 128 };
	long failed;

	if (!(policy->flags & ROUTE_LAN))
		return false;
	if (skb->protocol == htons(ETH_P_IP)) {
		to.words[2] = htonl(0xffff);
		failed = bpf_skb_load_bytes(skb, IPV4_DESTINATION, &to.words[3], 4);
	} else {
		failed = bpf_skb_load_bytes(skb, IPV6_DESTINATION, to.words, 16);
	}
	return !failed && lans.lookup(&to);
}

/* Who made the socket of a packet; 0 for one that was not made in the route. */
static __always_inline u32 maker_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct led *led;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	led = led_socket(sk);
	return led ? led->maker : 0;
}

static __always_inline int refuse_packet(struct __sk_buff *skb, u32 maker, enum why why)
{
	struct process *process = that_process(maker);

	if (process)
		process->strayed = skb->ifindex;
	return refuse(process, why);
}

/* The kill switch: why a packet must not leave, or WHYS. */
static __always_inline enum why why_not(struct __sk_buff *skb, const struct policy *policy)
{
	if (skb->ifindex == LOOPBACK || to_lan(skb, policy))
		return WHYS;
	if (skb->ifindex != policy->ifindex)
		return WHY_STRAY;
	if (skb->protocol == htons(ETH_P_IPV6) && policy->flags & ROUTE_NO_IPV6)
		return WHY_IPV6;
	return own_source(skb, policy) ? WHYS : WHY_SOURCE;
}

int route_out(struct __sk_buff *skb)
{
	struct policy *policy = policy_now();
	u32 maker = maker_of(skb);
	struct process *process;
	enum why why;

	if (!policy)
		return 0;
	why = why_not(skb, policy);
	if (why != WHYS)
		return refuse_packet(skb, maker, why);
	process = processes.lookup(&maker);
	if (process) {
		process->ifindex = skb->ifindex;
		__sync_fetch_and_add(&process->out_packets, skb->gso_segs ? skb->gso_segs : 1);
		__sync_fetch_and_add(&process->out_bytes, skb->len);
	}
	return 1;
}

int route_in(struct __sk_buff *skb)
{
	u32 maker = maker_of(skb);
	struct process *process = maker ? processes.lookup(&maker) : NULL;

	if (process) {
		__sync_fetch_and_add(&process->in_packets, skb->gso_segs ? skb->gso_segs : 1);
		__sync_fetch_and_add(&process->in_bytes, skb->len);
	}
	return 1;
}

/* Refuse a connection, or a datagram without one, in a way that programs get over at once. */
static __always_inline int refuse_address(struct led *led, enum why why)
{
	u32 pid = led ? led->maker : 0;

	bpf_set_retval(NO_NETWORK);
	return refuse(that_process(pid), why);
}

/* Names are asked of the route's resolver, whichever one the program means. */
static __always_inline int asks_ipv4(struct bpf_sock_addr *address)
{
	struct policy *policy = policy_now();
	struct led *led;

	if (!policy)
		return 0;
	if (address->user_port != DNS_PORT || !(policy->dns4 | policy->dns6[0]))
		return 1;
	led = led_socket(address->sk);
	if (!led || !policy->dns4)
		return refuse_address(led, WHY_DNS);
	led->asked4 = address->user_ip4;
	address->user_ip4 = policy->dns4;
	return 1;
}

int route_connect4(struct bpf_sock_addr *address)
{
	return asks_ipv4(address);
}

int route_send4(struct bpf_sock_addr *address)
{
	return asks_ipv4(address);
}

/* The resolver that was meant is who answers. */
static __always_inline int told_ipv4(struct bpf_sock_addr *address)
{
	struct policy *policy = policy_now();
	struct led *led;

	if (!policy || address->user_port != DNS_PORT || !policy->dns4 ||
	    address->user_ip4 != policy->dns4)
		return 1;
	led = led_socket(address->sk);
	if (led && led->asked4)
		address->user_ip4 = led->asked4;
	return 1;
}

int route_receive4(struct bpf_sock_addr *address)
{
	return told_ipv4(address);
}

int route_peer4(struct bpf_sock_addr *address)
{
	return told_ipv4(address);
}

static __always_inline bool is_mapped(const struct bpf_sock_addr *address)
{
	return !(address->user_ip6[0] | address->user_ip6[1]) &&
	       address->user_ip6[2] == htonl(0xffff);
}

static __always_inline bool is_loopback(const struct bpf_sock_addr *address)
{
	return !(address->user_ip6[0] | address->user_ip6[1] | address->user_ip6[2]) &&
	       address->user_ip6[3] == htonl(1);
}

static __always_inline void put_ipv6(struct bpf_sock_addr *address, u32 first, u32 second, u32 third,
				     u32 last)
{
	address->user_ip6[0] = first;
	address->user_ip6[1] = second;
	address->user_ip6[2] = third;
	address->user_ip6[3] = last;
}

/* `connects` is a constant: a datagram without a connection cannot go from one family to the other. */
static __always_inline int asks_ipv6(struct bpf_sock_addr *address, const bool connects)
{
	bool mapped = is_mapped(address), question = address->user_port == DNS_PORT;
	struct led *led = led_socket(address->sk);
	struct policy *policy = policy_now();

	if (!policy)
		return 0;
	question = question && (policy->dns4 | policy->dns6[0]);
	if (!question)
		return policy->flags & ROUTE_NO_IPV6 && !mapped && !is_loopback(address)
			       ? refuse_address(led, WHY_IPV6)
			       : 1;
	if (!led)
		return refuse_address(led, WHY_DNS);
	led->asked6[0] = address->user_ip6[0];
	led->asked6[1] = address->user_ip6[1];
	led->asked6[2] = address->user_ip6[2];
	led->asked6[3] = address->user_ip6[3];
	if (policy->dns4 && (mapped || (connects && !policy->dns6[0])))
		put_ipv6(address, 0, 0, htonl(0xffff), policy->dns4);
	else if (policy->dns6[0] && (!mapped || connects))
		put_ipv6(address, policy->dns6[0], policy->dns6[1], policy->dns6[2],
			 policy->dns6[3]);
	else
		return refuse_address(led, WHY_DNS);
	return 1;
}

int route_connect6(struct bpf_sock_addr *address)
{
	return asks_ipv6(address, true);
}

int route_send6(struct bpf_sock_addr *address)
{
	return asks_ipv6(address, false);
}

static __always_inline bool is_resolver(const struct bpf_sock_addr *address,
					const struct policy *policy)
{
	if (is_mapped(address))
		return policy->dns4 && address->user_ip6[3] == policy->dns4;
	return policy->dns6[0] && !((address->user_ip6[0] ^ policy->dns6[0]) |
				    (address->user_ip6[1] ^ policy->dns6[1]) |
				    (address->user_ip6[2] ^ policy->dns6[2]) |
				    (address->user_ip6[3] ^ policy->dns6[3]));
}

static __always_inline int told_ipv6(struct bpf_sock_addr *address)
{
	struct policy *policy = policy_now();
	struct led *led;

	if (!policy || address->user_port != DNS_PORT || !is_resolver(address, policy))
		return 1;
	led = led_socket(address->sk);
	if (!led)
		return 1;
	if (led->asked6[0] | led->asked6[1] | led->asked6[2] | led->asked6[3])
		put_ipv6(address, led->asked6[0], led->asked6[1], led->asked6[2], led->asked6[3]);
	else if (led->asked4)  /* a datagram to a mapped address is one of IPv4's */
		put_ipv6(address, 0, 0, htonl(0xffff), led->asked4);
	return 1;
}

int route_receive6(struct bpf_sock_addr *address)
{
	return told_ipv6(address);
}

int route_peer6(struct bpf_sock_addr *address)
{
	return told_ipv6(address);
}
