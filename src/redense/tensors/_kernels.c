/* The one loop that a sparse phase spends its time in: a tensor's bits, and a bit each that says which stay. And what
 * makes those bits of a bool mask.
 *
 * A mask of one bit an element is an eighth of one of bytes, so that the loop takes no longer than changing the
 * tensor's signs. torch's fast multiplication first writes a bool mask out in the wider type. Optional: without it
 * zeroing.py does the same in plain torch. Threads are torch's own where torch brings GNU's libgomp under its own
 * name, as its wheels for Linux do.
 */
#include "_kernels.h"
#include <string.h>

#ifndef _OPENMP
#error "one thread would be slower than torch's own operations with several"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a word of 32 bits is read from four bytes of a mask, the first the lowest"
#endif

/* bits_32 may begin anywhere: in torch.frombuffer(content, offset=1), say */
#define ZERO_PRUNED(WIDTH)                                                                                             \
    typedef uint##WIDTH##_t __attribute__((aligned(1), may_alias)) bits_##WIDTH;                                       \
    WIDEST static void zero_piece_##WIDTH(bits_##WIDTH *bits, const uint8_t *kept, Py_ssize_t count) {                 \
        Py_ssize_t words = count / 32;                                                                                 \
        for (Py_ssize_t w = 0; w < words; w++) {                                                                       \
            bits_##WIDTH *some = bits + 32 * w;                                                                        \
            uint32_t word;                                                                                             \
            memcpy(&word, kept + 4 * w, 4);                                                                            \
            for (int i = 0; i < 32; i++) some[i] &= (uint##WIDTH##_t)-(uint##WIDTH##_t)(word >> i & 1);                \
        }                                                                                                              \
        for (Py_ssize_t i = 32 * words; i < count; i++)                                                                \
            bits[i] &= (uint##WIDTH##_t)-(uint##WIDTH##_t)(kept[i / 8] >> i % 8 & 1);                                  \
    }                                                                                                                  \
    static void zero_##WIDTH(bits_##WIDTH *bits, const uint8_t *kept, Py_ssize_t count, int threads) {                 \
        if (count <= PIECE || threads == 1) { /* even a team of one costs OpenMP a microsecond */                      \
            zero_piece_##WIDTH(bits, kept, count);                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
        _Pragma("omp parallel for schedule(static) num_threads(threads)")                                              \
        for (Py_ssize_t start = 0; start < count; start += PIECE)                                                      \
            zero_piece_##WIDTH(bits + start, kept + start / 8, count - start < PIECE ? count - start : PIECE);         \
    }

ZERO_PRUNED(8)
ZERO_PRUNED(16)
ZERO_PRUNED(32)
ZERO_PRUNED(64)

void zero_elements(void *elements, const uint8_t *kept, Py_ssize_t count, Py_ssize_t width, int threads) {
    if (width == 1) zero_8(elements, kept, count, threads);
    if (width == 2) zero_16(elements, kept, count, threads);
    if (width == 4) zero_32(elements, kept, count, threads);
    if (width == 8) zero_64(elements, kept, count, threads);
}

static PyObject *zero_by_bits(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (given != 5) return PyErr_Format(PyExc_TypeError, "zero_by_bits takes 5 arguments, got %zd", given);
    void *bits = PyLong_AsVoidPtr(arguments[0]);
    const uint8_t *kept = PyLong_AsVoidPtr(arguments[1]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[2]), width = PyLong_AsSsize_t(arguments[3]);
    int threads = (int)PyLong_AsLong(arguments[4]);
    if (PyErr_Occurred()) return NULL;
    if (width != 1 && width != 2 && width != 4 && width != 8)
        return PyErr_Format(PyExc_ValueError, "an element has 1, 2, 4 or 8 bytes, got %zd", width);
    if (count > 0 && (!bits || !kept)) return PyErr_Format(PyExc_ValueError, "a tensor has no memory of its own");
    Py_BEGIN_ALLOW_THREADS
    zero_elements(bits, kept, count, width, threads);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Eight bytes to a bit each, the first the lowest: whatever is set in a byte falls to its lowest bit, and the product
 * brings the eight of them together in the top byte. */
static uint8_t pack_eight(uint64_t bytes) {
    bytes |= bytes >> 4;
    bytes |= bytes >> 2;
    bytes |= bytes >> 1;
    return (uint8_t)((bytes & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

static PyObject *pack_bits(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (given != 3) return PyErr_Format(PyExc_TypeError, "pack_bits takes 3 arguments, got %zd", given);
    const uint8_t *kept = PyLong_AsVoidPtr(arguments[0]);
    uint8_t *bits = PyLong_AsVoidPtr(arguments[1]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred()) return NULL;
    if (count > 0 && (!bits || !kept)) return PyErr_Format(PyExc_ValueError, "a tensor has no memory of its own");
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t eight = 0; eight < count / 8; eight++) {
        uint64_t bytes;
        memcpy(&bytes, kept + 8 * eight, 8);
        bits[eight] = pack_eight(bytes);
    }
    if (count % 8) {
        uint64_t bytes = 0;
        memcpy(&bytes, kept + count - count % 8, (size_t)(count % 8));
        bits[count / 8] = pack_eight(bytes);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"zero_by_bits", (PyCFunction)(void (*)(void))zero_by_bits, METH_FASTCALL,
     "zero_by_bits(bits, kept, count, width, threads)\n\n"
     "Zero the elements of `width` bytes at address `bits` whose bit at address `kept` is 0, the first one's the\n"
     "lowest of its byte."},
    {"pack_bits", (PyCFunction)(void (*)(void))pack_bits, METH_FASTCALL,
     "pack_bits(kept, bits, count)\n\n"
     "Write a bit for each byte at address `kept` to address `bits`: whether it is not 0."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && (add_codes(module) || add_watch(module))) Py_CLEAR(module);
    return module;
}
