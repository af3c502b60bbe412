/* The benchmark's workload: rounds of malloc and free pairs, each round on request.
 *
 * A line "DEPTH PAIRS" on standard input runs PAIRS pairs below DEPTH further frames and answers with the
 * nanoseconds per pair. Ends when its standard input is closed. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void run_pairs(long pairs)
{
	for (long i = 0; i < pairs; i++) {
		void *block = malloc(64);
		__asm__ volatile("" : "+r"(block) : : "memory");
		free(block);
	}
}

__attribute__((noinline)) static void descend(int depth, long pairs)
{
	if (depth == 0)
		run_pairs(pairs);
	else
		descend(depth - 1, pairs);
	/* Keeps the call above from becoming a jump. */
	__asm__ volatile("");
}

static double now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(void)
{
	int depth;
	long pairs;
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%d %ld", &depth, &pairs) != 2 || pairs < 1)
			return 1;
		double start = now_ns();
		descend(depth, pairs);
		printf("%.2f\n", (now_ns() - start) / (double)pairs);
		fflush(stdout);
	}
	return 0;
}
