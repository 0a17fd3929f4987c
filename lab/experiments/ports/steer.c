/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Three ways to bring a request to an open socket, as if it had come up the stack: for there it
 * comes up the stack. XDP itself can give a packet to no socket but its own kind.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#ifndef FIRST_PORT
#define FIRST_PORT 51141  /* the loader says */
#define CPU 0
#endif

#define PORTS 4

BPF_TABLE("sockmap", u32, u32, workers, PORTS);
BPF_CPUMAP(cpus, CPU + 1);

/* Of the sockets that share a port (SO_REUSEPORT), the one that the payload's first digit names. */
int by_digit(struct __sk_buff *skb)
{
	u8 digit = 0;

	bpf_skb_load_bytes(skb, 0, &digit, sizeof(digit));
	return digit - '1';
}

/* Before the stack looks for a socket (sk_lookup): the worker of that port, bound to anything. */
int by_port(struct bpf_sk_lookup *context)
{
	u32 which = context->local_port - FIRST_PORT;
	void *worker;

	if (context->protocol != IPPROTO_UDP || which >= PORTS)
		return 1;  /* SK_PASS: as if we were not there */
	worker = workers.lookup(&which);
	if (!worker)
		return 1;
	bpf_sk_assign(context, worker, 0);
	bpf_sk_release(worker);
	return 1;
}

/* Before the stack is entered: on which CPU. */
int on_cpu(struct xdp_md *context)
{
	return cpus.redirect_map(CPU, 0);
}
