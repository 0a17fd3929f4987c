/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Three ways to bring a request to an open socket. In all of them it comes up the stack: XDP itself
 * can give a packet to no socket but an AF_XDP one.
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

/* Among sockets that share a port (SO_REUSEPORT), take the one of the payload's first digit. */
int by_digit(struct __sk_buff *skb)
{
	u8 digit = 0;

	bpf_skb_load_bytes(skb, 0, &digit, sizeof(digit));
	return digit - '1';
}

/* Before the stack looks up a socket (sk_lookup), take the port's worker, wherever it is bound. */
int by_port(struct bpf_sk_lookup *context)
{
	u32 which = context->local_port - FIRST_PORT;
	void *worker;

	if (context->protocol != IPPROTO_UDP || which >= PORTS)
		return 1;  /* SK_PASS: the stack looks up as usual */
	worker = workers.lookup(&which);
	if (!worker)
		return 1;
	bpf_sk_assign(context, worker, 0);
	bpf_sk_release(worker);
	return 1;
}

/* Choose the CPU on which a packet enters the stack. */
int on_cpu(struct xdp_md *context)
{
	return cpus.redirect_map(CPU, 0);
}
