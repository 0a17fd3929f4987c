/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The server is known by its sockets, which carry a mark. Userspace finds them by their cookies,
 * and the first packet of each brings its mark. Sockets that are bound later, at the server's doors
 * or by one of its processes, are marked as they are bound. Accepted ones take their listener's. A
 * socket without a mark is not the server's, whatever port and address it sends from.
 *
 * A server's own socket keeps the mark that it has taken until userspace says that some have changed: the
 * server may be away by a change of rules alone, and have another number for its address once it is back.
 *
 * MARK_NEW is a guess until userspace has looked: that socket's writes void, as long as it belongs
 * to the server's user, and its replies are not learned. A door for datagrams is a guess too:
 * userspace, which looks while sockets are being bound, may miss that it is the server's.
 */
#ifndef CAROM_MARKS_H
#define CAROM_MARKS_H

#include "abi.h"
#include "events.h"
#include "maps.h"
#include "parse.h"
#include "token.h"
#include "typed.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
#define LISTENING 10  /* TCP_LISTEN, net/tcp_states.h */

SOCKET_STORAGE(marks, struct mark, BPF_F_CLONE);
BPF_HASH(sockets, u64, struct mark, SOCKETS_MAX);     /* by cookie: what userspace has found */
BPF_HASH(doors, struct door, struct mark, DOORS_MAX);
BPF_ARRAY(door_ports, u64, 65536 / 64);               /* a bit for each port of a door */
BPF_HASH(servers, u32, u32, SOCKETS_MAX);             /* the service of a process, by its pid */
BPF_ARRAY(watches, struct watch, SERVICES_MAX);
/* Of a server's sockets: how many changes there were; behind them, how often it lost one of its own. */
BPF_F_TABLE("array", u32, u64, changes, 2 * SERVICES_MAX, BPF_F_MMAPABLE);

static __always_inline void tell_change(u32 service)
{
	u64 *count = changes.lookup(&service);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Has a server lost a socket of its own since userspace looked at it? */
static __always_inline bool may_have_ended(u32 service, const struct watch *watch)
{
	u32 index = SERVICES_MAX + service;
	u64 *losses = changes.lookup(&index);

	return losses && (u32)*losses != watch->losses;
}

static __always_inline bool is_door(u32 port)
{
	u32 word = port / 64;
	u64 *ports = door_ports.lookup(&word);

	return ports && *ports >> port % 64 & 1;
}

static __always_inline bool is_internet(u32 type, u32 protocol)
{
	return (type == SOCK_STREAM && protocol == IPPROTO_TCP) ||
	       (type == SOCK_DGRAM && protocol == IPPROTO_UDP);
}

/* Is a mark a guess, which userspace may know better by now? */
static __always_inline bool is_guess(const struct mark *mark, const struct bpf_sock *sk)
{
	return mark->kind == MARK_NEW || (mark->kind == MARK_DOOR && sk->type == SOCK_DGRAM);
}

/* How often userspace has changed marks of a service; read before any mark is looked up. */
static __always_inline u32 changes_of_marks(u32 *service, const struct mark *mark)
{
	struct watch *watch;

	*service = mark->service;
	watch = watches.lookup(service);
	return watch ? *(volatile u32 *)&watch->changed : 0;
}

/* The mark of a socket that has none yet, or one that was a guess or may have changed. */
static __always_inline struct mark *find_mark(struct __sk_buff *skb, struct bpf_sock *sk,
					      struct mark *guess, u32 changed)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	struct mark *found = sockets.lookup(&cookie), *mark;

	if (!found) {
		if (!guess)
			count_event(STRANGER);
		else if (guess->kind == MARK_SERVER)
			guess->kind = MARK_DOOR;  /* the server is away */
		return guess;
	}
	mark = marks.sk_storage_get(sk, found, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mark) {  /* no memory: void and hold, as what it does is not seen */
		void_cell(SLOTS + found->service, true);
		return NULL;
	}
	*mark = *found;
	mark->changed = changed;
	return mark;
}

/*
 * The mark of this packet's socket; NULL for a stranger's. `service` is the caller's place for a
 * service's number: with one of its own the stack would differ behind, and the verifier would follow
 * the rest once for each way.
 */
static __always_inline struct mark *mark_of(struct __sk_buff *skb, struct bpf_sock *sk, u32 *service)
{
	struct mark *mark = marks.sk_storage_get(sk, 0, 0);
	struct watch *watch;
	u32 changed = 0;

	if (!mark && !is_door(sk->src_port))
		return NULL;
	if (mark)
		changed = changes_of_marks(service, mark);
	if (!mark || is_guess(mark, sk) || (mark->kind == MARK_SERVER && mark->changed != changed))
		mark = find_mark(skb, sk, mark, changed);
	if (!mark || mark->kind != MARK_NEW)
		return mark && mark->kind ? mark : NULL;
	/* Its own network namespace is the service's, so its user is what it seems. */
	*service = mark->service;
	watch = watches.lookup(service);
	if (watch && bpf_get_socket_uid(skb) == watch->uid &&
	    (!mark->view || (u16)(watch->away - mark->view + 1) <= 2))
		return mark;
	count_event(STRANGER);
	return NULL;
}

/*
 * A socket is bound at a port of a server that is in another namespace than the daemon. A restarted
 * server may be in a namespace that is not known yet: while it is away, or may have ended and
 * userspace has not looked yet, a socket bound there is a guess. Anybody may bind one, and be any
 * user in a namespace of his own, but then nothing is cached that he could void. Once userspace has
 * looked twice, it is no guess any more.
 */
static __always_inline void see_elsewhere(struct bpf_sock *sk, struct door *door)
{
	struct mark guess = { .kind = MARK_NEW }, *known;
	struct watch *watch;
	u32 service;

	__builtin_memset(&door->address, 0, sizeof(door->address));
	door->netns = 0;
	known = doors.lookup(door);
	if (!known)
		return;
	service = known->service;
	watch = watches.lookup(&service);
	if (watch && (watch->away & 1 || may_have_ended(service, watch))) {
		guess.service = service;
		guess.view = watch->away | 1;
		marks.sk_storage_get(sk, &guess, BPF_SK_STORAGE_GET_F_CREATE);
	}
	tell_change(service);
}

/* A socket is bound: at one of a server's doors, or by one of a server's processes? */
static __always_inline void see_bind(struct bpf_sock *sk, struct door *door)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mark fresh = {}, *known;
	u32 *service;

	if (!is_internet(sk->type, sk->protocol))
		return;
	door->port = sk->src_port;
	door->stream = sk->type == SOCK_STREAM;
	door->netns = bpf_get_netns_cookie(sk);
	service = servers.lookup(&pid);
	known = doors.lookup(door);
	if (known) {
		/*
		 * Userspace looks at a server's own process too: replies from this socket may be
		 * learned.
		 */
		fresh.service = known->service;
		fresh.kind = MARK_NEW;
	} else if (service) {
		fresh.service = *service;
		fresh.kind = MARK_DOOR;
	} else {
		see_elsewhere(sk, door);
		return;
	}
	if (service && *service != fresh.service)
		tell_change(*service);  /* its process has ended, and the number is another's */
	marks.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
	count_event(BOUND);
	tell_change(fresh.service);
}

/* A socket is gone. Its server may be restarting, and may have lost what it had stored. */
static __always_inline void see_release(struct bpf_sock *sk)
{
	u64 cookie = bpf_get_socket_cookie(sk);
	struct mark *mark = marks.sk_storage_get(sk, 0, 0);
	struct mark *found = sockets.lookup(&cookie);
	struct mark gone = {};

	if (found)
		gone = *found;
	else if (mark)
		gone = *mark;
	if (found)
		sockets.delete(&cookie);
	if (gone.kind < MARK_DOOR || (sk->type == SOCK_STREAM && sk->state != LISTENING))
		return;
	if (gone.kind == MARK_SERVER || sk->type == SOCK_STREAM)
		tell_change(SERVICES_MAX + gone.service);
	void_cell(SLOTS + gone.service, false);
	count_event(RELEASED);
	tell_change(gone.service);
}

#endif
