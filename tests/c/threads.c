/*
 * Threads that open streams, translate and close them, over and over, while a page is mapped, unmapped and spoiled under
 * them. None may see a spoiled byte, or use what is another's.
 */
#include "check.h"
#include <stdatomic.h>

enum { THREADS = 4, REMAPPED = 100, SPOILED = 0xee };

static struct ioasd_walker *walker;
static const uint64_t IOVA = 0x100000;
static atomic_int stop, seen, missed;

/* The first and the last byte of the page, in one burst. */
static void look(struct ioasd_stream *stream)
{
	struct ioasd_memory memory;
	unsigned char first = 0, last = 0;
	int error;

	do {
		EXPECT(0, ioasd_enter(stream));
		error = ioasd_translate(stream, IOVA, PAGE, IOASD_READ, &memory);
		if (!error) {
			HOLDS(memory.length == PAGE);
			first = __atomic_load_n((unsigned char *)memory.address, __ATOMIC_RELAXED);
			last = __atomic_load_n((unsigned char *)memory.address + PAGE - 1, __ATOMIC_RELAXED);
		}
		EXPECT(0, ioasd_leave(stream));
	} while (error == -EAGAIN && !(error = ioasd_learn(stream)));
	if (error == -EFAULT) {
		CODE("fault-not-present");
		missed++;
		return;
	}
	EXPECT(0, error);
	HOLDS(first == last && first != SPOILED);
	seen++;
}

static void *look_again_and_again(void *unused)
{
	struct ioasd_stream *stream;

	while (!stop) {
		EXPECT(0, ioasd_stream_open(walker, seen % 2 ? IOASD_STREAM_IOTLB : 0, &stream));
		for (int i = 0; i < 50 && !stop; i++)
			look(stream);
		EXPECT(0, ioasd_stream_close(stream));
		EXPECT(-EBADF, ioasd_walker_close(NULL));
		CODE("not-open");
	}
	return unused;
}

int main(int argc, char **argv)
{
	struct ioasd_connection *agent;
	uint32_t ioas, device, hwpt;
	pthread_t threads[THREADS];
	unsigned char *memory;
	int file, channel;

	HOLDS(argc == 2);
	memory = new_memory(1, &file);
	EXPECT(0, ioasd_connect(argv[1], &agent));
	EXPECT(0, ioasd_ioas_alloc(agent, &ioas));
	EXPECT(0, ioasd_device_create(agent, IOASD_FORMAT_RISCV_SV48, 0, &device));
	EXPECT(0, ioasd_device_attach(agent, device, ioas, &hwpt));
	EXPECT(0, ioasd_domain_export(agent, hwpt, &channel));
	EXPECT(0, ioasd_walker_open(channel, &walker));
	for (int i = 0; i < THREADS; i++)
		HOLDS(!pthread_create(&threads[i], NULL, look_again_and_again, NULL));
	for (int i = 0; i < REMAPPED || !seen || !missed; i++) {
		memset(memory, i % 128, PAGE);
		EXPECT(0, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ, IOVA));
		sched_yield();
		EXPECT(0, ioasd_unmap(agent, ioas, IOVA, PAGE, NULL));
		memset(memory, SPOILED, PAGE);
	}
	stop = 1;
	for (int i = 0; i < THREADS; i++)
		HOLDS(!pthread_join(threads[i], NULL));
	EXPECT(0, ioasd_walker_close(walker));
	EXPECT(0, ioasd_close(agent));
	printf("%d looks, %d while nothing was mapped\n", seen, missed);
	return 0;
}
