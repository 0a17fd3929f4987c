/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef CAROM_COPY_H
#define CAROM_COPY_H

/*
 * bpf_probe_read_kernel() by another name. BCC takes an older helper for it, which is not for XDP,
 * where it cannot find it among the kernel's symbols: without CAP_SYSLOG they have no addresses.
 */
static long (*copy_kernel)(void *to, u32 size, const void *from) =
	(void *)BPF_FUNC_probe_read_kernel;

#endif
