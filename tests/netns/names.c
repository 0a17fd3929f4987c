/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the IPv4 address of a name, as the C library finds it. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int count, char **words)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_DGRAM }, *found;
	char text[INET_ADDRSTRLEN];
	int failed = getaddrinfo(words[count - 1], NULL, &hints, &found);

	if (failed) {
		fprintf(stderr, "%s\n", gai_strerror(failed));
		return 1;
	}
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof(text)));
	return 0;
}
