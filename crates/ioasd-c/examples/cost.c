/*
 * What a translation costs in C: the domain behind standard input, walked as the arguments say. For examples/cost.rs.
 *
 *	cost BASE LENGTH FLAGS STRIDE REPEAT
 *
 * One line for each round: nanoseconds a translation, of which 64 are in a burst.
 */
#define _POSIX_C_SOURCE 200809L
#include <ioasd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOKUPS = 1 << 16, BURST = 64, ASKED = 64 };

static uint64_t offsets[LOOKUPS];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* STRIDE 0 is at random. */
static void choose(uint64_t length, uint64_t stride)
{
	uint64_t state = 0x9e3779b97f4a7c15, units = length / ASKED;

	for (uint64_t i = 0; i < LOOKUPS; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		offsets[i] = (stride ? i * stride / ASKED : state) % units * ASKED;
	}
}

/* The sum of where the addresses lead. */
static uintptr_t go_round(struct ioasd_stream *stream, uint64_t base)
{
	struct ioasd_memory memory;
	uintptr_t sum = 0;

	for (size_t i = 0; i < LOOKUPS; i += BURST) {
		ioasd_enter(stream);
		for (size_t j = i; j < i + BURST; j++) {
			if (ioasd_translate(stream, base + offsets[j], ASKED, IOASD_READ, &memory)) {
				fprintf(stderr, "%s\n", ioasd_error_text());
				exit(1);
			}
			sum += (uintptr_t)memory.address;
		}
		ioasd_leave(stream);
	}
	return sum;
}

int main(int argc, char **argv)
{
	struct ioasd_walker *walker;
	struct ioasd_stream *stream;
	volatile uintptr_t sum;
	uint64_t base;

	if (argc != 6)
		return 2;
	base = strtoull(argv[1], NULL, 0);
	choose(strtoull(argv[2], NULL, 0), strtoull(argv[4], NULL, 0));
	if (ioasd_walker_open(0, &walker) || ioasd_stream_open(walker, strtoul(argv[3], NULL, 0), &stream)) {
		fprintf(stderr, "%s\n", ioasd_error_text());
		return 1;
	}
	for (int left = atoi(argv[5]); left > 0; left--) {
		double start = now();

		sum = go_round(stream, base);
		printf("%.3f\n", (now() - start) / LOOKUPS);
	}
	(void)sum;
	return 0;
}
