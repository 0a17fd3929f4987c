/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that see sockets being bound (Linux 5.7) and released (5.9). They refuse nothing. */
#include "marks.h"
#include "stream.h"

#define GRANTED 1

int edge_bind4(struct bpf_sock *sk)
{
	struct door door = {};

	if (sk->src_ip4)
		door.address = mapped_address(sk->src_ip4);
	see_bind(sk, &door);
	return GRANTED;
}

int edge_bind6(struct bpf_sock *sk)
{
	struct door door = {};

	door.address.words[0] = sk->src_ip6[0];
	door.address.words[1] = sk->src_ip6[1];
	door.address.words[2] = sk->src_ip6[2];
	door.address.words[3] = sk->src_ip6[3];
	see_bind(sk, &door);
	return GRANTED;
}

int edge_release(struct bpf_sock *sk)
{
	see_end(sk);
	see_release(sk);
	return GRANTED;
}
