/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef CAROM_COPY_H
#define CAROM_COPY_H

/*
 * bpf_probe_read_kernel() by another name. Where BCC does not find that among the kernel's symbols,
 * which have no addresses without CAP_SYSLOG, it takes an older helper that XDP may not call.
 */
static long (*copy_kernel)(void *to, u32 size, const void *from) =
	(void *)BPF_FUNC_probe_read_kernel;

/* bpf_map_lookup_elem() in a map that was found in another one. */
static void *(*look_into)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;

#endif
