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
	u32 asked;   /* what dns_asked() said of the request */
	u32 zero;
	u64 sum;
	u8 text[TEXT_ROOM];
	u8 reply[REPLY_ROOM];
	struct key key;
	struct address client;
	struct cookies cookies;
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
	bench->asked = bench->verdict == INTENT_READ ? dns_asked(&bench->key) : ASKED_UNKNOWN;
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

/* The COOKIE that ends `text`: 1 for one that is right, 2 for one that is fresh, 3 for both. */
int run_cookie(struct xdp_md *ctx)
{
	struct bench *bench = only();
	const u8 *option;

	if (!bench)
		return XDP_ABORTED;
	bench->verdict = 0;
	if (dns_request(bench->text, bench->text_length, &bench->key) != INTENT_READ)
		return XDP_PASS;
	option = dns_cookie(bench->text, &bench->key);
	if (!option)
		return XDP_PASS;
	bench->verdict = dns_cookie_right(option + 4, &bench->client, &bench->cookies) |
			 dns_cookie_fresh(option + 4, bench->age) << 1;
	return XDP_PASS;
}

/* dns_return_cookie behind dns_answer, with the key in the bench. */
int run_return(struct xdp_md *ctx)
{
	struct bench *bench = only();
	u64 sum = 0;
	u32 length;

	if (!bench)
		return XDP_ABORTED;
	length = bench->length;
	if (length < DNS_HEADER || length > REPLY_MAX)
		return XDP_ABORTED;
	bench->verdict = dns_return_cookie(bench->reply, &length, bench->text, &bench->key, &sum);
	bench->length = length;
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
	bench->verdict = dns_learn(bench->reply, &length, &bench->key, &stored, &ttl,
				   bench->asked);
	bench->length = length;
	bench->stored = stored;
	bench->ttl = ttl;
	return XDP_PASS;
}
