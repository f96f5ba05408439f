/* What the programs here share: a call whose result must be the one that is expected, and memory. */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ioasd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

#define EXPECT(wanted, call) expect(__LINE__, #call, (wanted), (call))
#define HOLDS(condition) holds(__LINE__, #condition, (condition))
#define CODE(wanted) code(__LINE__, (wanted))

static inline void expect(int line, const char *call, int wanted, int found)
{
	if (found != wanted) {
		fprintf(stderr, "line %d: %s gave %d, expected %d; last error: %s\n", line, call, found, wanted,
			ioasd_error_text());
		exit(1);
	}
}

static inline void holds(int line, const char *condition, int found)
{
	if (!found) {
		fprintf(stderr, "line %d: not so: %s\n", line, condition);
		exit(1);
	}
}

/* The last failure has this code, and something to say. */
static inline void code(int line, const char *wanted)
{
	const char *text = ioasd_error_text();

	if (strcmp(ioasd_error_code(), wanted) || !*text) {
		fprintf(stderr, "line %d: code \"%s\" (%s), expected \"%s\"\n", line, ioasd_error_code(), text, wanted);
		exit(1);
	}
}

/* Pages of a memfd, each byte of which is the number of its page, from 1. */
static inline unsigned char *new_memory(int pages, int *file)
{
	unsigned char *memory;

	*file = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	HOLDS(*file >= 0 && !ftruncate(*file, pages * PAGE));
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
	HOLDS(memory != MAP_FAILED);
	for (int i = 0; i < pages; i++)
		memset(memory + i * PAGE, i + 1, PAGE);
	HOLDS(!fcntl(*file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	return memory;
}

#endif
