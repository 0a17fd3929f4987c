/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The process that concurrency.c is compared with, in C like the published ones. It is compiled when
 * it is needed, and called by worker.py.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

typedef uint32_t u32;

#include "work.h"

u32 work(u32 value, u32 loops)
{
	return worked(value, loops);
}

/* Answer on a socket until that fails, and count the requests. */
void serve(int fd, u32 loops, volatile uint64_t *requests)
{
	struct sockaddr_in client;
	socklen_t length;
	ssize_t got;
	u32 word;

	for (;;) {
		length = sizeof(client);
		got = recvfrom(fd, &word, sizeof(word), MSG_TRUNC, (struct sockaddr *)&client, &length);
		if (got < 0 && errno != EINTR)
			return;
		if (got != sizeof(word))
			continue;
		*requests += 1;
		word = htonl(worked(ntohl(word), loops));
		sendto(fd, &word, sizeof(word), 0, (struct sockaddr *)&client, length);
	}
}
