/* SPDX-License-Identifier: GPL-2.0-only */
/* The functions of dns.h, each in a program of its own that takes and gives through one map. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#include "dns.h"

struct bench {
	u32 text_length;
	u32 length;  /* of the reply */
	u32 stored;
	u32 ttl;
	u32 age;
	u32 verdict; /* what the function said */
	u64 sum;
	u8 text[TEXT_ROOM];
	u8 reply[REPLY_ROOM];
	struct key key;
};

BPF_ARRAY(benches, struct bench, 1);

static __always_inline struct bench *only(void)
{
	u32 index = 0;

	return benches.lookup(&index);
}

int run_request(struct xdp_md *ctx)
{
	struct bench *bench = only();

	if (!bench)
		return XDP_ABORTED;
	bench->verdict = dns_request(bench->text, bench->text_length, &bench->key);
	return XDP_PASS;
}

int run_answer(struct xdp_md *ctx)
{
	struct bench *bench = only();
	u64 sum = 0;

	if (!bench)
		return XDP_ABORTED;
	bench->verdict = dns_answer(bench->reply, bench->length, bench->stored, bench->text,
				    bench->text_length, bench->age, &sum);
	bench->sum = sum;
	return XDP_PASS;
}

int run_learn(struct xdp_md *ctx)
{
	struct bench *bench = only();
	u32 length, stored, ttl;

	if (!bench)
		return XDP_ABORTED;
	length = bench->length;
	stored = bench->stored;
	ttl = bench->ttl;
	bench->verdict = dns_learn(bench->reply, &length, &bench->key, &stored, &ttl);
	bench->length = length;
	bench->stored = stored;
	bench->ttl = ttl;
	return XDP_PASS;
}
