/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path at XDP: bounce a request, or answer it from the cache, or hand it on untouched. */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "checksum.h"
#include "parse.h"
#include "raw.h"
#include "reply.h"

#ifndef CACHE_TYPE
#define CACHE_TYPE "lru_hash"
#endif
#ifndef CACHE_CAPACITY
#define CACHE_CAPACITY 10000
#endif

#define BYTES_BOUND 2048  /* the power of two that the verifier believes of REPLY_MAX bytes */

struct scratch {
	struct key key;
	u32 zero;
	union {
		struct entry entry;
		u8 payload[BYTES_BOUND + 4];
		u8 room[offsetof(struct entry, reply) + BYTES_BOUND];
	};
};

BPF_TABLE(CACHE_TYPE, struct key, struct entry, cache, CACHE_CAPACITY);
BPF_F_TABLE("array", u32, u64, versions, SLOTS + SERVICES_MAX, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, lease, 1, BPF_F_MMAPABLE);  /* jiffies until which to answer */
BPF_F_TABLE("array", u32, u64, clock, 1, BPF_F_MMAPABLE);  /* jiffies, when last asked */
BPF_HASH(services, struct endpoint, struct service, SERVICES_MAX);
BPF_ARRAY(interfaces, struct interface, 1);
BPF_PERCPU_ARRAY(verdicts, u64, VERDICTS);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);

/* Every path ends here: count the verdict, and say it in XDP's words. */
static __always_inline int finish(enum verdict verdict)
{
	u32 index = verdict;
	u64 *counter = verdicts.lookup(&index);

	if (counter)
		*counter += 1;
	switch (verdict) {
	case BOUNCE:
	case HIT:
		return XDP_TX;
	case FAULT:
		return XDP_ABORTED;
	default:
		return XDP_PASS;
	}
}

static __always_inline u64 now(void)
{
#ifdef TEST_CLOCK
	u32 only = 0;
	u64 *jiffies = clock.lookup(&only);

	return jiffies ? *jiffies : 0;
#else
	return bpf_jiffies64();
#endif
}

static __always_inline u64 version(u32 cell)
{
	u64 *counter = versions.lookup(&cell);

	return counter ? *(volatile u64 *)counter : 0;
}

static __always_inline bool leased(void)
{
	u32 only = 0;
	u64 *until = lease.lookup(&only);

	return until && now() < *(volatile u64 *)until;
}

/* bpf_csum_diff takes at most 512 bytes on kernels before 6.13; `bytes` is zero up to a word. */
static __always_inline u64 sum_bytes(u8 *bytes, u32 length)
{
	u64 sum = 0;

#pragma unroll
	for (u32 start = 0; start < REPLY_MAX; start += 512) {
		u32 size = length > start ? length - start : 0;

		if (size > 512)
			size = 512;
		if (start + size > REPLY_MAX)
			size = REPLY_MAX - start;
		size = (size + 3) & ~3u;
		asm volatile("" : "+r"(size));
		if (size && size <= 512)
			sum += (u32)bpf_csum_diff(NULL, 0, (__be32 *)(bytes + start), size, 0);
	}
	return sum;
}

/*
 * The same value, for callers that have checked it to be from 1 to `bound` (a power of two). The
 * verifier loses that check where clang folds it into another; this mask it sees.
 */
static __always_inline u32 bounded(u32 value, u32 bound)
{
	value -= 1;
	asm volatile("" : "+r"(value));
	value &= bound - 1;
	return value + 1;
}

static __always_inline void rewrite(struct request *request, const struct interface *interface,
				    enum sum request_sum, u16 length, u64 payload_sum)
{
	swap_ethernet(request->eth);
	swap_ipv4(request->ip, length);
	swap_udp(request->udp, length);
	request->udp->check = reply_check(request->ip, request->udp, payload_sum, request_sum,
					  interface->skb_mode);
}

static __always_inline enum verdict bounce(struct xdp_md *ctx, struct request *request,
					   const struct interface *interface, struct scratch *scratch)
{
	u32 length = request->length;
	enum sum request_sum;
	u64 payload_sum = 0;

	if (length > REPLY_MAX)
		return PASS_SIZE;
	if (length) {
		length = bounded(length, BYTES_BOUND);
		*(u32 *)(scratch->payload + (length & ~3u)) = 0;
		if (bpf_xdp_load_bytes(ctx, HEADERS, scratch->payload, length))
			return PASS_TRUNCATED;
		payload_sum = sum_bytes(scratch->payload, length);
	}
	request_sum = classify_sum(request->ip, request->udp, payload_sum, interface->skb_mode);
	if (request_sum == SUM_WRONG)
		return PASS_CHECKSUM;
	rewrite(request, interface, request_sum, length, payload_sum);
	return BOUNCE;
}

/* Both are followed by a zero u32, and so are whole words; behind their length both are zero. */
static __always_inline bool same_key(const struct key *a, const struct key *b)
{
	const u64 *left = (const u64 *)a, *right = (const u64 *)b;

	for (u32 i = 0; i < (sizeof(struct key) + sizeof(u32)) / sizeof(u64); i++) {
		if (left[i] != right[i])
			return false;
		if ((i + 1) * sizeof(u64) >= offsetof(struct key, bytes) + b->length)
			break;
	}
	return true;
}

/* Bytes behind the headers: the reply, and zeros up to the shortest frame. */
static __always_inline u32 frame_body(u32 length)
{
	return length < FRAME_MIN - HEADERS ? FRAME_MIN - HEADERS : length;
}

/*
 * Copy the entry of scratch->key to scratch->entry and judge the copy. Nothing is decided on the
 * map's own memory: an LRU element can be reused under a reader.
 */
static __always_inline enum verdict look_up(struct scratch *scratch)
{
	struct entry *copy = &scratch->entry;
	struct entry *entry = cache.lookup(&scratch->key);
	u64 tail;
	u32 body;

	if (!entry)
		return MISS;
	tail = *(volatile u64 *)&entry->tail;
	body = frame_body(*(volatile u16 *)&entry->length);
	if (body > REPLY_MAX ||
	    bpf_probe_read_kernel(copy, offsetof(struct entry, reply) + bounded(body, BYTES_BOUND),
				  entry))
		return MISS_TORN;
	if (*(volatile u64 *)&entry->head != tail || copy->head != tail ||
	    frame_body(copy->length) != body || !same_key(&copy->key, &scratch->key))
		return MISS_TORN;
	if (copy->token != version(copy->slot) ||
	    copy->generation != version(SLOTS + scratch->key.service))
		return MISS_VOID;
	if (now() >= copy->expires)
		return MISS_EXPIRED;
	return HIT;
}

static __always_inline bool resize(struct xdp_md *ctx, u32 body)
{
	int delta = (int)(HEADERS + body) - (int)(ctx->data_end - ctx->data);

	return !delta || !bpf_xdp_adjust_tail(ctx, delta);
}

static __always_inline enum verdict serve(struct xdp_md *ctx, const struct interface *interface,
					  enum sum request_sum, struct scratch *scratch)
{
	struct entry *entry = &scratch->entry;
	struct request request = {};
	struct cursor cursor;
	u32 body = frame_body(entry->length);

	if (body + sizeof(struct iphdr) + sizeof(struct udphdr) > interface->mtu ||
	    !resize(ctx, body))
		return PASS_ROOM;
	cursor.pos = (void *)(long)ctx->data;
	cursor.end = (void *)(long)ctx->data_end;
	request.eth = parse_ethernet(&cursor);
	request.ip = parse_ipv4(&cursor);
	request.udp = parse_udp(&cursor);
	if (!request.eth || !request.ip || !request.udp ||
	    bpf_xdp_store_bytes(ctx, HEADERS, entry->reply, bounded(body, BYTES_BOUND)))
		return FAULT;
	rewrite(&request, interface, request_sum, entry->length, entry->sum);
	return HIT;
}

static __always_inline enum verdict serve_cached(struct xdp_md *ctx, struct request *request,
						 const struct service *service,
						 const struct interface *interface,
						 struct scratch *scratch)
{
	u32 length = request->length;
	enum verdict verdict;
	enum sum request_sum;

	if (!raw_has_key(length))
		return PASS_SIZE;
	__builtin_memset(&scratch->key, 0, sizeof(scratch->key));
	scratch->key.service = service->id;
	scratch->key.length = length;
	if (bpf_xdp_load_bytes(ctx, HEADERS, scratch->key.bytes, bounded(length, KEY_MAX)))
		return PASS_TRUNCATED;
	verdict = look_up(scratch);
	if (verdict != HIT)
		return verdict;
	request_sum = classify_sum(request->ip, request->udp,
				   sum_bytes(scratch->key.bytes, length), interface->skb_mode);
	if (request_sum == SUM_WRONG)
		return PASS_CHECKSUM;
	return serve(ctx, interface, request_sum, scratch);
}

static __always_inline enum verdict answer(struct xdp_md *ctx)
{
	struct cursor cursor = { (void *)(long)ctx->data, (void *)(long)ctx->data_end };
	struct request request = {};
	struct endpoint endpoint = {};
	struct interface *interface;
	struct service *service;
	struct scratch *scratch;
	enum verdict verdict;
	u32 only = 0;

	verdict = parse_request(&cursor, &request);
	if (verdict)
		return verdict;
	endpoint.address = request.ip->daddr;
	endpoint.port = request.udp->dest;
	service = services.lookup(&endpoint);
	if (!service)
		return PASS_SERVICE;
	interface = interfaces.lookup(&only);
	scratch = scratches.lookup(&only);
	if (!interface || !scratch)
		return PASS_OFF;
	verdict = check_request(&request, interface);
	if (verdict)
		return verdict;
	endpoint.address = request.ip->saddr;
	if (services.lookup(&endpoint))
		return PASS_SOURCE;  /* another address of ours */
	if (service->fast == FAST_OFF)
		return PASS_OFF;
	if (!leased())
		return PASS_LEASE;
	if (service->fast == FAST_BOUNCE)
		return bounce(ctx, &request, interface, scratch);
	return serve_cached(ctx, &request, service, interface, scratch);
}

int fastpath(struct xdp_md *ctx)
{
	return finish(answer(ctx));
}

/*
 * Userspace's hands, run by BPF_PROG_TEST_RUN and never attached. A version is added to here, for an
 * addition from userspace is not atomic with those of the kernel; jiffies can be read only here.
 */
int bump(struct xdp_md *ctx)
{
	u32 *cell = (void *)(long)ctx->data;
	u64 *counter;
	u32 index;

	if ((void *)(cell + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	index = *cell;
	counter = versions.lookup(&index);
	if (!counter)
		return XDP_ABORTED;
	__sync_fetch_and_add(counter, 1);
	return XDP_PASS;
}

int read_clock(struct xdp_md *ctx)
{
	u32 only = 0;
	u64 *jiffies = clock.lookup(&only);

	if (!jiffies)
		return XDP_ABORTED;
	*jiffies = bpf_jiffies64();
	return XDP_PASS;
}
