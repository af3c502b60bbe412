/* The demo's server: answers HTTP requests on 127.0.0.1 and leaks one session for each request of one kind.
 *
 *   GET /login    opens a session that nobody ever closes: the leak
 *   GET /page/N   renders page N and keeps it in a cache of 64 entries: memory that is held, but bounded
 *   GET /search   builds a result in many small blocks and releases them all: churn
 *
 * Prints the port that it listens on, and ends when its standard input is closed. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 4, CACHE_ENTRIES = 64, PAGE_BYTES = 4096, HITS = 20 };

struct session {
	struct session *next;
	char *user;
	char basket[2000];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct session *sessions;
static char *cache[CACHE_ENTRIES];

static void *allocate(size_t size)
{
	void *block = malloc(size);
	if (!block)
		abort();
	return block;
}

/* The leak: the list only grows. */
static struct session *create_session(const char *user)
{
	struct session *session = allocate(sizeof *session);
	session->user = allocate(strlen(user) + 1);
	strcpy(session->user, user);
	memset(session->basket, 0, sizeof session->basket);
	pthread_mutex_lock(&lock);
	session->next = sessions;
	sessions = session;
	pthread_mutex_unlock(&lock);
	return session;
}

static size_t handle_login(void)
{
	struct session *session = create_session("a visitor who will not log out");
	return strlen(session->user);
}

static char *render_page(unsigned number)
{
	char *page = allocate(PAGE_BYTES);
	memset(page, 'a' + (int)(number % 26), PAGE_BYTES - 1);
	page[PAGE_BYTES - 1] = '\0';
	return page;
}

static size_t handle_page(unsigned number)
{
	unsigned slot = number % CACHE_ENTRIES;
	char *page = render_page(number);
	pthread_mutex_lock(&lock);
	free(cache[slot]);
	cache[slot] = page;
	pthread_mutex_unlock(&lock);
	return PAGE_BYTES;
}

static char *find_hit(int rank)
{
	char *hit = allocate(64 + (size_t)rank);
	snprintf(hit, 64, "hit %d", rank);
	return hit;
}

static size_t handle_search(void)
{
	char *hits[HITS];
	size_t length = 0;
	for (int i = 0; i < HITS; i++)
		hits[i] = find_hit(i);
	for (int i = 0; i < HITS; i++) {
		length += strlen(hits[i]);
		free(hits[i]);
	}
	return length;
}

static size_t handle_request(const char *path)
{
	if (strncmp(path, "/login", 6) == 0)
		return handle_login();
	if (strncmp(path, "/page/", 6) == 0)
		return handle_page((unsigned)atoi(path + 6));
	return handle_search();
}

/* Serves the requests of one connection, one line each after the other, until the client closes it. */
static void serve_connection(int connection)
{
	char request[1024];
	size_t filled = 0;
	for (;;) {
		ssize_t got = read(connection, request + filled, sizeof request - 1 - filled);
		if (got <= 0)
			return;
		filled += (size_t)got;
		request[filled] = '\0';
		if (!strstr(request, "\r\n\r\n")) {
			if (filled == sizeof request - 1)
				return;
			continue;
		}
		char *path = strchr(request, ' ');
		char body[32], reply[128];
		snprintf(body, sizeof body, "%zu\n", handle_request(path ? path + 1 : ""));
		int length = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
				      strlen(body), body);
		if (write(connection, reply, (size_t)length) != length)
			return;
		filled = 0;
	}
}

static void *work(void *argument)
{
	int listener = *(int *)argument;
	for (;;) {
		int connection = accept(listener, NULL, NULL);
		if (connection < 0)
			continue;
		serve_connection(connection);
		close(connection);
	}
	return NULL;
}

int main(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 16) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &length) < 0) {
		perror("leaky_server");
		return 1;
	}
	for (int i = 0; i < WORKERS; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, work, &listener) != 0)
			return 1;
	}
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	char byte;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
