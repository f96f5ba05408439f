/*
 * A device in C that processes a ring of descriptors, all of whose addresses are IOVAs, while another process maps and
 * unmaps under it.
 *
 *	cc -o device examples/device.c $(pkg-config --cflags --libs ioasd)
 *	./device /run/ioasd/ioasd.sock [SECONDS]
 *
 * The driver (this process) fills buffers, maps each at an IOVA of its own, in two parts that lie the other way round in
 * memory, and posts descriptors. Some buffers it unmaps at once and spoils as soon as the unmap is answered. The device (its
 * child) adds up the words of each buffer, or reports a fault. A sum of spoiled bytes, or a fault where nothing was unmapped,
 * is an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ioasd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, SLOTS = 32, BUFFER = 4 * PAGE, HALF = BUFFER / 2, WORDS = BUFFER / 8 };
enum { IS_SUM = 1, IS_FAULT = 2, EARLY = 8 };

static const uint64_t RING = 0x100000, BUFFERS = 0x10000000, SPOILED = 0x0bad0bad0bad0bad;

struct descriptor {
	uint64_t iova;
	uint64_t status, sum; /* the device's */
};

struct ring {
	uint64_t posted, stop;
	uint64_t done; /* the device's */
	struct descriptor slot[SLOTS];
};

#define AT(field) (RING + offsetof(struct ring, field))

static int must(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, ioasd_error_text(), ioasd_error_code());
		exit(1);
	}
	return result;
}

/* The device. */

static int add_up(struct ioasd_stream *stream, uint64_t iova, uint64_t *sum)
{
	struct ioasd_rest rest = { iova, BUFFER };
	struct ioasd_memory memory;
	int found;

	*sum = 0;
	while ((found = ioasd_translate_next(stream, &rest, IOASD_READ, &memory)) > 0) {
		const uint64_t *word = memory.address;

		for (size_t i = 0; i < memory.length / sizeof(*word); i++)
			*sum += __atomic_load_n(word + i, __ATOMIC_RELAXED);
	}
	return found;
}

/* One descriptor, in a burst of its own, so that no unmap waits for more than that. */
static int process(struct ioasd_stream *stream, uint64_t number)
{
	uint64_t slot = AT(slot) + number % SLOTS * sizeof(struct descriptor), status = IS_SUM, iova, sum;
	int error;

	must(ioasd_load_u64(stream, slot + offsetof(struct descriptor, iova), &iova), "the ring");
	error = add_up(stream, iova, &sum);
	if (error == -EFAULT)
		status = IS_FAULT;
	else if (error)
		return error;
	must(ioasd_store_u64(stream, slot + offsetof(struct descriptor, sum), sum), "the ring");
	must(ioasd_store_u64(stream, slot + offsetof(struct descriptor, status), status), "the ring");
	must(ioasd_store_u64(stream, AT(done), number + 1), "the ring");
	return 0;
}

static void process_posted(struct ioasd_stream *stream, uint64_t number)
{
	int error;

	do {
		must(ioasd_enter(stream), "enter");
		error = process(stream, number);
		must(ioasd_leave(stream), "leave");
	} while (error == -EAGAIN && !(error = ioasd_learn(stream)));
	must(error, "a descriptor");
}

static int be_the_device(int channel)
{
	struct ioasd_walker *walker;
	struct ioasd_stream *stream;
	uint64_t posted, stop, done = 0;

	must(ioasd_walker_open(channel, &walker), "open the domain");
	must(ioasd_stream_open(walker, IOASD_STREAM_IOTLB, &stream), "open a stream");
	do {
		must(ioasd_enter(stream), "enter");
		must(ioasd_load_u64(stream, AT(stop), &stop), "the ring");
		must(ioasd_load_u64(stream, AT(posted), &posted), "the ring");
		must(ioasd_leave(stream), "leave");
		if (done == posted)
			sched_yield();
		while (done < posted)
			process_posted(stream, done++);
	} while (!stop);
	must(ioasd_stream_close(stream), "close the stream");
	must(ioasd_walker_close(walker), "close the walker");
	return 0;
}

/* The driver. */

static struct ioasd_connection *agent;
static uint32_t ioas;
static struct ring *ring;
static int buffers;
static uint64_t *words;
static uint64_t expected[SLOTS], sums, faults;
static pid_t child;

/* Memory that walkers are given: all of it is there, and it cannot shrink. */
static void *new_memory(const char *name, size_t length, int *file)
{
	void *memory = MAP_FAILED;

	*file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*file >= 0 && !posix_fallocate(*file, 0, length) && !fcntl(*file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
	if (memory == MAP_FAILED) {
		perror(name);
		exit(1);
	}
	return memory;
}

static int is_unmapped_early(uint64_t number)
{
	return number % EARLY == EARLY - 1;
}

/* No IOVA is used twice. */
static uint64_t iova_of(uint64_t number)
{
	return BUFFERS + number * 2 * BUFFER;
}

static void post(uint64_t number)
{
	uint64_t slot = number % SLOTS, sum = 0, *word = words + slot * WORDS;

	for (uint64_t i = 0; i < WORDS; i++)
		sum += word[i] = (number + 1) * 0x9e3779b97f4a7c15 ^ i;
	expected[slot] = sum;
	must(ioasd_map_file_at(agent, ioas, buffers, slot * BUFFER + HALF, HALF, IOASD_READ, iova_of(number)), "map");
	must(ioasd_map_file_at(agent, ioas, buffers, slot * BUFFER, HALF, IOASD_READ, iova_of(number) + HALF), "map");
	ring->slot[slot].iova = iova_of(number);
	ring->slot[slot].status = 0;
}

static void take_away(uint64_t number)
{
	uint64_t *word = words + number % SLOTS * WORDS, unmapped;

	must(ioasd_unmap(agent, ioas, iova_of(number), BUFFER, &unmapped), "unmap");
	for (uint64_t i = 0; i < WORDS; i++)
		word[i] = SPOILED;
	if (unmapped != BUFFER) {
		fprintf(stderr, "%llu bytes were unmapped\n", (unsigned long long)unmapped);
		exit(1);
	}
}

static void check(uint64_t number)
{
	uint64_t slot = number % SLOTS, status = __atomic_load_n(&ring->slot[slot].status, __ATOMIC_ACQUIRE);

	if (status == IS_SUM && ring->slot[slot].sum == expected[slot]) {
		sums++;
	} else if (status == IS_FAULT && is_unmapped_early(number)) {
		faults++;
	} else {
		fprintf(stderr, "descriptor %llu: status %llu, sum %#llx, expected %#llx\n", (unsigned long long)number,
			(unsigned long long)status, (unsigned long long)ring->slot[slot].sum,
			(unsigned long long)expected[slot]);
		exit(1);
	}
}

static void wait_for_the_device(uint64_t posted)
{
	while (__atomic_load_n(&ring->done, __ATOMIC_ACQUIRE) < posted) {
		if (waitpid(child, NULL, WNOHANG)) {
			fprintf(stderr, "the device ended early\n");
			exit(1);
		}
		sched_yield();
	}
}

/* Posts a descriptor in every slot, takes some buffers away at once, and checks what came of each. */
static void go_round(uint64_t first)
{
	uint64_t number, behind = first + SLOTS;

	for (number = first; number < behind; number++)
		post(number);
	__atomic_store_n(&ring->posted, behind, __ATOMIC_RELEASE);
	for (number = behind; number-- > first;)
		if (is_unmapped_early(number))
			take_away(number);
	wait_for_the_device(behind);
	for (number = first; number < behind; number++) {
		check(number);
		if (!is_unmapped_early(number))
			take_away(number);
	}
}

int main(int argc, char **argv)
{
	int ring_file, channel, status;
	uint32_t device, hwpt;
	uint64_t posted = 0;
	time_t end;

	if (argc < 2) {
		fprintf(stderr, "usage: device SOCKET [SECONDS]\n");
		return 2;
	}
	end = time(NULL) + (argc > 2 ? atoi(argv[2]) : 3);
	must(ioasd_connect(argv[1], &agent), argv[1]);
	must(ioasd_ioas_alloc(agent, &ioas), "allocate an address space");
	must(ioasd_device_create(agent, IOASD_FORMAT_AMD_V1, 0, &device), "create a device");
	must(ioasd_device_attach(agent, device, ioas, &hwpt), "attach the device");
	ring = new_memory("ring", PAGE, &ring_file);
	words = new_memory("buffers", SLOTS * BUFFER, &buffers);
	must(ioasd_map_file_at(agent, ioas, ring_file, 0, PAGE, IOASD_READ | IOASD_WRITE, RING), "map the ring");
	must(ioasd_domain_export(agent, hwpt, &channel), "export the domain");

	child = fork();
	if (!child) {
		must(ioasd_close(agent), "close the connection");
		return be_the_device(channel);
	}
	close(channel);
	do {
		go_round(posted);
		posted += SLOTS;
	} while (time(NULL) < end);
	__atomic_store_n(&ring->stop, 1, __ATOMIC_RELEASE);
	if (waitpid(child, &status, 0) != child || status) {
		fprintf(stderr, "the device failed\n");
		return 1;
	}
	must(ioasd_close(agent), "close the connection");
	printf("%llu sums, all right; %llu faults, all of buffers unmapped before the device came to them\n",
	       (unsigned long long)sums, (unsigned long long)faults);
	return 0;
}
