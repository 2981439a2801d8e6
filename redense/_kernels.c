/* The one loop that a sparse phase spends its time in: a tensor's bits, and a byte each that says which stay.
 *
 * A byte of 1 is negated to all ones, of 0 to none; the bits are and-ed with it. torch has no operation that reads a
 * bool beside a wider type without first writing it out in that type. Optional: without it zeroing.py does the same in
 * plain torch. Threads are torch's own: the loader finds its libgomp under the same name.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

#define PIECE 32768 /* elements that one thread takes at a time; fewer are not worth a second thread */

#define ZERO_PRUNED(WIDTH)                                                                                             \
    WIDEST static void zero_piece_##WIDTH(uint##WIDTH##_t *bits, const int8_t *kept, Py_ssize_t count) {               \
        for (Py_ssize_t i = 0; i < count; i++) bits[i] &= (uint##WIDTH##_t)(-(int##WIDTH##_t)kept[i]);                 \
    }                                                                                                                  \
    static void zero_##WIDTH(uint##WIDTH##_t *bits, const int8_t *kept, Py_ssize_t count) {                            \
        _Pragma("omp parallel for schedule(static) if (count > PIECE)")                                                \
        for (Py_ssize_t start = 0; start < count; start += PIECE)                                                      \
            zero_piece_##WIDTH(bits + start, kept + start, count - start < PIECE ? count - start : PIECE);             \
    }

ZERO_PRUNED(8)
ZERO_PRUNED(16)
ZERO_PRUNED(32)
ZERO_PRUNED(64)

static PyObject *zero_pruned(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (given != 4) return PyErr_Format(PyExc_TypeError, "zero_pruned takes 4 arguments, got %zd", given);
    void *bits = PyLong_AsVoidPtr(arguments[0]);
    const int8_t *kept = PyLong_AsVoidPtr(arguments[1]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[2]), width = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred()) return NULL;
    if (width != 1 && width != 2 && width != 4 && width != 8)
        return PyErr_Format(PyExc_ValueError, "an element has 1, 2, 4 or 8 bytes, got %zd", width);
    if (count > 0 && (!bits || !kept)) return PyErr_Format(PyExc_ValueError, "a tensor has no memory of its own");
    Py_BEGIN_ALLOW_THREADS
    if (width == 1) zero_8(bits, kept, count);
    if (width == 2) zero_16(bits, kept, count);
    if (width == 4) zero_32(bits, kept, count);
    if (width == 8) zero_64(bits, kept, count);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"zero_pruned", (PyCFunction)(void (*)(void))zero_pruned, METH_FASTCALL,
     "zero_pruned(bits, kept, count, width): zero the elements of `width` bytes at address `bits` whose byte at `kept` is 0."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
