/* What the files of these checks share. */
#ifndef QK_CHECK_THREADS_H
#define QK_CHECK_THREADS_H

/* End the program, and say what, unless it holds. */
void expect(int holds, const char *what);

/* check_calls.c */
void check_interruption(void);
void check_modes_of_workers(void);

#endif
