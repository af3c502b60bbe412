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

/* Each frame is one of another function, as in real programs: functions 0 to 63 in turn. */
typedef void function(int depth, long pairs);
static function *const descend[64];

#define DESCEND(n) \
	__attribute__((noinline)) static void descend_##n(int depth, long pairs) \
	{ \
		if (depth == 0) \
			run_pairs(pairs); \
		else \
			descend[(0##n + 1) % 64](depth - 1, pairs); \
		/* Keeps the call above from becoming a jump. */ \
		__asm__ volatile(""); \
	}
/* Numbers are octal, two digits each. */
#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define ALL(X) \
	EIGHT(X, 0) EIGHT(X, 1) EIGHT(X, 2) EIGHT(X, 3) EIGHT(X, 4) EIGHT(X, 5) EIGHT(X, 6) EIGHT(X, 7)
ALL(DESCEND)

#define NAME(n) descend_##n,
static function *const descend[64] = { ALL(NAME) };

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
		descend[0](depth, pairs);
		printf("%.2f\n", (now_ns() - start) / (double)pairs);
		fflush(stdout);
	}
	return 0;
}
