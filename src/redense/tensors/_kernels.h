/* What the parts of the extension know of each other. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#ifdef __GNUC__
#define HIDDEN __attribute__((visibility("hidden")))
#else
#define HIDDEN
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

/* Zero the `count` elements of `width` bytes (1, 2, 4 or 8) whose bit is 0, on up to `threads` threads. */
HIDDEN void zero_elements(void *elements, const uint8_t *kept, Py_ssize_t count, Py_ssize_t width, int threads);

/* Elements that one thread takes at a time; fewer are not worth a second thread. */
#define PIECE 32768

/* Give the module Watch and stamp, if this torch has what they need; otherwise than 0 with an exception set. */
HIDDEN int add_watch(PyObject *module);

/* Give the module what selection asks of keys and their codes. */
HIDDEN int add_codes(PyObject *module);
