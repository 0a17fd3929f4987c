/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What BCC says before a program, for a clang without it: types, helpers, and maps that are looked up
 * as BCC has it written. Each map is a struct in `.maps`, as libbpf reads it, and a constant with
 * functions, which clang inlines. kernel/clang.py puts this before the rest.
 */
#ifndef CAROM_CLANG_H
#define CAROM_CLANG_H

#include <asm/byteorder.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/swab.h>
#include <stdbool.h>
#include <stddef.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

/* Objects are little-endian. */
#define htons(value) ((__be16)__builtin_bswap16(value))
#define htonl(value) ((__be32)__builtin_bswap32(value))
#define ntohs(value) htons(value)
#define ntohl(value) htonl(value)

#define HELPER(type, name, ...) static type (*bpf_##name)(__VA_ARGS__) = (void *)BPF_FUNC_##name

HELPER(void *, map_lookup_elem, void *map, const void *key);
HELPER(long, map_update_elem, void *map, const void *key, const void *value, u64 flags);
HELPER(long, map_delete_elem, void *map, const void *key);
HELPER(long, map_push_elem, void *map, const void *value, u64 flags);
HELPER(long, tail_call, void *context, void *map, u32 index);
HELPER(void *, sk_storage_get, void *map, void *sk, void *value, u64 flags);
HELPER(long, ringbuf_output, void *map, void *data, u64 size, u64 flags);
HELPER(void *, ringbuf_reserve, void *map, u64 size, u64 flags);
HELPER(long, redirect_map, void *map, u64 key, u64 flags);
HELPER(long, redirect, u32 ifindex, u64 flags);
HELPER(long, xdp_load_bytes, void *context, u32 offset, void *to, u32 length);
HELPER(long, xdp_store_bytes, void *context, u32 offset, void *from, u32 length);
HELPER(long, xdp_adjust_tail, void *context, int delta);
HELPER(long, xdp_adjust_meta, void *context, int delta);
HELPER(long, skb_load_bytes, const void *skb, u32 offset, void *to, u32 length);
HELPER(long, skb_load_bytes_relative, const void *skb, u32 offset, void *to, u32 length, u32 start);
HELPER(long, skb_store_bytes, void *skb, u32 offset, const void *from, u32 length, u64 flags);
HELPER(long, skb_change_tail, void *skb, u32 length, u64 flags);
HELPER(long, skb_pull_data, void *skb, u32 length);
HELPER(long, fib_lookup, void *context, struct bpf_fib_lookup *route, int size, u32 flags);
HELPER(long, csum_diff, __be32 *from, u32 from_size, __be32 *to, u32 to_size, __wsum seed);
HELPER(long, sk_assign, void *context, void *sk, u64 flags);
HELPER(long, sk_release, void *sk);
HELPER(struct bpf_sock *, sk_fullsock, struct bpf_sock *sk);
HELPER(struct bpf_tcp_sock *, tcp_sock, struct bpf_sock *sk);
HELPER(u32, get_prandom_u32, void);
HELPER(u32, get_smp_processor_id, void);
HELPER(u64, ktime_get_ns, void);
HELPER(u64, jiffies64, void);
HELPER(u64, get_socket_cookie, void *context);
HELPER(u32, get_socket_uid, struct __sk_buff *skb);
HELPER(u64, get_netns_cookie, void *context);
HELPER(u64, get_current_pid_tgid, void);
HELPER(u64, get_current_uid_gid, void);
HELPER(long, get_current_comm, void *to, u32 size);
HELPER(int, set_retval, int error);

/* A map's kind, by BCC's name of it. */
#define KIND(kind, text, number) (__builtin_strcmp(kind, text) ? 0 : BPF_MAP_TYPE_##number)
#define KIND_OF(kind)                                                                            \
	(KIND(kind, "hash", HASH) | KIND(kind, "array", ARRAY) |                                 \
	 KIND(kind, "lru_hash", LRU_HASH) | KIND(kind, "lpm_trie", LPM_TRIE) |                   \
	 KIND(kind, "percpu_array", PERCPU_ARRAY) | KIND(kind, "percpu_hash", PERCPU_HASH) |     \
	 KIND(kind, "lru_percpu_hash", LRU_PERCPU_HASH) | KIND(kind, "sockmap", SOCKMAP))

/* In a map's struct, which is in no memory, numbers and types are what members point to. */
#define MAP(number, key_type, value_type, name, entries, flags)                                  \
	struct {                                                                                 \
		int (*type)[number];                                                             \
		int (*max_entries)[entries];                                                     \
		int (*map_flags)[flags];                                                         \
		key_type *key;                                                                   \
		value_type *value;                                                               \
	} name##_map __attribute__((section(".maps"), used))
#define METHOD static __always_inline
#define METHODS static const struct __attribute__((unused))

#define TABLE(number, key_type, value_type, name, entries, flags)                                \
	MAP(number, key_type, value_type, name, entries, flags);                                 \
	METHOD value_type *name##_lookup(const key_type *key)                                    \
	{                                                                                        \
		return bpf_map_lookup_elem(&name##_map, key);                                    \
	}                                                                                        \
	METHOD long name##_update(const key_type *key, const value_type *value)                  \
	{                                                                                        \
		return bpf_map_update_elem(&name##_map, key, value, BPF_ANY);                    \
	}                                                                                        \
	METHOD long name##_delete(const key_type *key)                                           \
	{                                                                                        \
		return bpf_map_delete_elem(&name##_map, key);                                    \
	}                                                                                        \
	METHOD value_type *name##_or_new(const key_type *key, const value_type *value)           \
	{                                                                                        \
		value_type *found = name##_lookup(key);                                          \
												 \
		if (found)                                                                       \
			return found;                                                            \
		bpf_map_update_elem(&name##_map, key, value, BPF_NOEXIST);                       \
		return name##_lookup(key);                                                       \
	}                                                                                        \
	METHODS {                                                                                \
		value_type *(*lookup)(const key_type *);                                         \
		long (*update)(const key_type *, const value_type *);                            \
		long (*delete)(const key_type *);                                                \
		value_type *(*lookup_or_try_init)(const key_type *, const value_type *);         \
	} name = { name##_lookup, name##_update, name##_delete, name##_or_new }

#define BPF_F_TABLE(kind, key_type, value_type, name, entries, flags)                            \
	enum { name##_kind = KIND_OF(kind) };                                                    \
	TABLE(name##_kind, key_type, value_type, name, entries, flags)
#define BPF_TABLE(kind, key_type, value_type, name, entries)                                     \
	BPF_F_TABLE(kind, key_type, value_type, name, entries, 0)
#define BPF_HASH(name, key_type, value_type, entries)                                            \
	TABLE(BPF_MAP_TYPE_HASH, key_type, value_type, name, entries, 0)
#define BPF_ARRAY(name, value_type, entries)                                                     \
	TABLE(BPF_MAP_TYPE_ARRAY, u32, value_type, name, entries, 0)
#define BPF_PERCPU_ARRAY(name, value_type, entries)                                              \
	TABLE(BPF_MAP_TYPE_PERCPU_ARRAY, u32, value_type, name, entries, 0)
#define BPF_ARRAY_OF_MAPS(name, inner, entries)                                                  \
	TABLE(BPF_MAP_TYPE_ARRAY_OF_MAPS, u32, u32, name, entries, 0)
#define LOCKED_ARRAY(name, value_type, entries) BPF_ARRAY(name, value_type, entries)

#define SOCKET_STORAGE(name, value_type, more_flags)                                             \
	MAP(BPF_MAP_TYPE_SK_STORAGE, int, value_type, name, 0, BPF_F_NO_PREALLOC | (more_flags)); \
	METHOD value_type *name##_get(void *sk, void *value, u64 flags)                          \
	{                                                                                        \
		return bpf_sk_storage_get(&name##_map, sk, value, flags);                        \
	}                                                                                        \
	METHODS {                                                                                \
		value_type *(*sk_storage_get)(void *, void *, u64);                              \
	} name = { name##_get }

#define BPF_PROG_ARRAY(name, entries)                                                            \
	MAP(BPF_MAP_TYPE_PROG_ARRAY, u32, u32, name, entries, 0);                                \
	METHOD void name##_call(void *context, u32 index)                                        \
	{                                                                                        \
		bpf_tail_call(context, &name##_map, index);                                      \
	}                                                                                        \
	METHODS {                                                                                \
		void (*call)(void *, u32);                                                       \
	} name = { name##_call }

/* Pages, as BCC counts. */
#define BPF_RINGBUF_OUTPUT(name, pages)                                                          \
	MAP(BPF_MAP_TYPE_RINGBUF, void, void, name, (pages) * PAGE_SIZE, 0);                     \
	METHOD long name##_output(void *data, u64 size, u64 flags)                               \
	{                                                                                        \
		return bpf_ringbuf_output(&name##_map, data, size, flags);                       \
	}                                                                                        \
	METHOD void *name##_reserve(u64 size)                                                    \
	{                                                                                        \
		return bpf_ringbuf_reserve(&name##_map, size, 0);                                \
	}                                                                                        \
	METHODS {                                                                                \
		long (*ringbuf_output)(void *, u64, u64);                                        \
		void *(*ringbuf_reserve)(u64);                                                   \
		void (*ringbuf_submit)(void *, u64);                                             \
		void (*ringbuf_discard)(void *, u64);                                            \
	} name = { name##_output, name##_reserve, (void *)BPF_FUNC_ringbuf_submit,               \
		   (void *)BPF_FUNC_ringbuf_discard }

#define BPF_QUEUE(name, value_type, entries)                                                     \
	MAP(BPF_MAP_TYPE_QUEUE, void, value_type, name, entries, 0);                             \
	METHOD long name##_push(const value_type *value, u64 flags)                              \
	{                                                                                        \
		return bpf_map_push_elem(&name##_map, value, flags);                             \
	}                                                                                        \
	METHODS {                                                                                \
		long (*push)(const value_type *, u64);                                           \
	} name = { name##_push }

#define BPF_CPUMAP(name, entries)                                                                \
	MAP(BPF_MAP_TYPE_CPUMAP, u32, u32, name, entries, 0);                                    \
	METHOD long name##_redirect(u32 key, u64 flags)                                          \
	{                                                                                        \
		return bpf_redirect_map(&name##_map, key, flags);                                \
	}                                                                                        \
	METHODS {                                                                                \
		long (*redirect_map)(u32, u64);                                                  \
	} name = { name##_redirect }

char _license[] __attribute__((section("license"), used)) = "GPL";

#endif
