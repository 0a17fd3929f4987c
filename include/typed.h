/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maps whose value types the kernel must know by BTF: those with a spin lock, and storage on
 * sockets. BCC's macros offer some of them, without the flags that are needed here.
 */
#ifndef CAROM_TYPED_H
#define CAROM_TYPED_H

#include <uapi/linux/bpf.h>

#ifndef CAROM_CLANG_H  /* which has its own */

/* BCC finds the type of a map `name` in this section, by this name. */
#define VALUE_TYPE(name, key_type, value_type)                                                   \
	struct ____btf_map_##name {                                                              \
		key_type key;                                                                    \
		value_type value;                                                                \
	};                                                                                       \
	struct ____btf_map_##name __attribute__((section(".maps." #name), used))                 \
		____btf_map_##name = {}

/* An array of values with a lock. It cannot be mapped by userspace. */
#define LOCKED_ARRAY(name, value_type, size)                                                     \
	struct name##_table_t {                                                                  \
		u32 key;                                                                         \
		value_type leaf;                                                                 \
		value_type *(*lookup)(u32 *);                                                    \
		u32 max_entries;                                                                 \
		u32 flags;                                                                       \
	};                                                                                       \
	__attribute__((section("maps/array"))) struct name##_table_t name = {                    \
		.max_entries = (size),                                                           \
	};                                                                                       \
	VALUE_TYPE(name, u32, value_type)

/*
 * A value on each socket, gone with the socket; accepted sockets get their listener's (Linux 5.4).
 */
#define SOCKET_STORAGE(name, value_type, more_flags)                                             \
	struct name##_table_t {                                                                  \
		int key;                                                                         \
		value_type leaf;                                                                 \
		void *(*sk_storage_get)(void *, void *, int);                                    \
		int (*sk_storage_delete)(void *);                                                \
		u32 flags;                                                                       \
	};                                                                                       \
	__attribute__((section("maps/sk_storage"))) struct name##_table_t name = {               \
		.flags = BPF_F_NO_PREALLOC | (more_flags),                                       \
	};                                                                                       \
	VALUE_TYPE(name, int, value_type)

#endif

static void (*lock_value)(struct bpf_spin_lock *) = (void *)BPF_FUNC_spin_lock;
static void (*unlock_value)(struct bpf_spin_lock *) = (void *)BPF_FUNC_spin_unlock;

#endif
