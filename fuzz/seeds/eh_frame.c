/* What seeds/eh_frame is made of: one function for each form of frame. */
long other(long, char *);

long realigned(long a, long n) {
    __attribute__((aligned(64))) char buffer[128];
    char *more = __builtin_alloca(n);
    buffer[0] = more[0] = 1;
    return other(a, buffer) + other(a, more);
}

long large(long a) {
    char buffer[400000];
    return other(a, buffer);
}

long pushes(long a, long b, long c, long d) {
    long sum = 0;
    while (a--)
        sum += other(b, (char *)c) * d;
    return sum;
}
