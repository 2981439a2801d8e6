/* Selection's passes over huge tensors: keys are read once and become a byte each, bytes are counted, searched and
 * turned into the mask. codes.py says what each does, and does the same in plain torch where this was not compiled.
 */
#include "_kernels.h"
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define MEGABYTE ((uintptr_t)1 << 20)

/* Of many bytes that nothing was written to yet, half the time goes into the system's pages of 4 kB; NumPy asks for
 * large ones as well. A wish: where it is not granted, nothing is said. */
static void ask_for_large_pages(uint8_t *codes, Py_ssize_t count) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t start = ((uintptr_t)codes + 2 * MEGABYTE - 1) & ~(2 * MEGABYTE - 1);
    uintptr_t end = ((uintptr_t)codes + (uintptr_t)count) & ~(2 * MEGABYTE - 1);
    if (count >= 4 * (Py_ssize_t)MEGABYTE && end > start) madvise((void *)start, end - start, MADV_HUGEPAGE);
#endif
}

/* A key is read without its sign, and may begin at any address. */
#define ENCODE(WIDTH)                                                                                                  \
    typedef int##WIDTH##_t __attribute__((aligned(1), may_alias)) key_##WIDTH;                                         \
    WIDEST static int64_t encode_##WIDTH(const key_##WIDTH *keys, uint8_t *codes, Py_ssize_t count, int shift,         \
                                         int##WIDTH##_t lowest, int##WIDTH##_t most) {                                 \
        int##WIDTH##_t peak = 0;                                                                                       \
        for (Py_ssize_t i = 0; i < count; i++) {                                                                       \
            int##WIDTH##_t key = keys[i] & INT##WIDTH##_MAX;                                                           \
            peak = key > peak ? key : peak;                                                                            \
            key = (int##WIDTH##_t)(key >> shift);                                                                      \
            key = key < lowest ? lowest : key;                                                                         \
            key = key > most ? most : key;                                                                             \
            codes[i] = (uint8_t)((uint8_t)key - (uint8_t)lowest + 1);                                                  \
        }                                                                                                              \
        return peak;                                                                                                   \
    }

ENCODE(16)
ENCODE(32)
ENCODE(64)

#define LANES 64

/* How many codes lie from `first` to `first + span`. */
WIDEST static Py_ssize_t count_between(const uint8_t *codes, Py_ssize_t count, uint8_t first, uint8_t span) {
    Py_ssize_t found = 0;
    while (count >= LANES) {
        uint8_t lanes[LANES] = {0};
        Py_ssize_t rows = count / LANES < 255 ? count / LANES : 255; /* more would not fit a byte */
        for (Py_ssize_t row = 0; row < rows; row++)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += (uint8_t)(codes[LANES * row + lane] - first) <= span;
        for (int lane = 0; lane < LANES; lane++) found += lanes[lane];
        codes += LANES * rows;
        count -= LANES * rows;
    }
    for (Py_ssize_t i = 0; i < count; i++) found += (uint8_t)(codes[i] - first) <= span;
    return found;
}

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* Write the indices of one code, in order, and no more than there is room for; how many those are. */
static Py_ssize_t find(const uint8_t *codes, Py_ssize_t count, uint8_t code, int64_t *places, Py_ssize_t room) {
    Py_ssize_t found = 0, start = 0;
    for (; start + 8 <= count; start += 8) {
        uint64_t eight;
        memcpy(&eight, codes + start, 8);
        eight ^= EACH_BYTE * code;
        if (!((eight - EACH_BYTE) & ~eight & EACH_BYTE << 7)) continue; /* no byte of them is 0 */
        for (Py_ssize_t i = start; i < start + 8; i++)
            if (codes[i] == code && found < room) places[found++] = i;
    }
    for (; start < count; start++)
        if (codes[start] == code && found < room) places[found++] = start;
    return found;
}

WIDEST static void flag_above(uint8_t *codes, Py_ssize_t count, uint8_t code) {
    for (Py_ssize_t i = 0; i < count; i++) codes[i] = codes[i] > code;
}

WIDEST static void flag_from(uint8_t *codes, Py_ssize_t count, uint8_t code) {
    for (Py_ssize_t i = 0; i < count; i++) codes[i] = codes[i] >= code;
}

/* Codes become flags: 1 above `code`, and where they equal it after the first `ties` such. */
static void flag(uint8_t *codes, Py_ssize_t count, uint8_t code, Py_ssize_t ties) {
    for (Py_ssize_t start = 0; start < count; start += PIECE) {
        if (ties >= count - start) { /* all that are left: nothing to count */
            flag_above(codes + start, count - start, code);
            return;
        }
        uint8_t *piece = codes + start;
        Py_ssize_t size = count - start < PIECE ? count - start : PIECE;
        if (!ties) {
            flag_from(piece, size, code);
            continue;
        }
        Py_ssize_t equal = count_between(piece, size, code, 0);
        if (equal <= ties) {
            flag_above(piece, size, code);
            ties -= equal;
            continue;
        }
        for (Py_ssize_t i = 0; i < size; i++) {
            int left_out = piece[i] == code && ties > 0;
            ties -= left_out;
            piece[i] = piece[i] >= code && !left_out;
        }
    }
}

static int takes(const char *name, Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted) return 1;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, given);
    return 0;
}

static int in_memory(Py_ssize_t count, const void *one, const void *other) {
    if (count <= 0 || (one && other)) return 1;
    PyErr_SetString(PyExc_ValueError, "a tensor has no memory of its own");
    return 0;
}

static PyObject *encode(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (!takes("encode", given, 7)) return NULL;
    const void *keys = PyLong_AsVoidPtr(arguments[0]);
    uint8_t *codes = PyLong_AsVoidPtr(arguments[1]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[2]), width = PyLong_AsSsize_t(arguments[3]);
    int shift = (int)PyLong_AsLong(arguments[4]);
    int64_t lowest = PyLong_AsLongLong(arguments[5]), most = PyLong_AsLongLong(arguments[6]), peak = 0;
    if (PyErr_Occurred() || !in_memory(count, keys, codes)) return NULL;
    if (width != 2 && width != 4 && width != 8)
        return PyErr_Format(PyExc_ValueError, "a key has 2, 4 or 8 bytes, got %zd", width);
    Py_BEGIN_ALLOW_THREADS
    ask_for_large_pages(codes, count);
    if (width == 2) peak = encode_16(keys, codes, count, shift, (int16_t)lowest, (int16_t)most);
    if (width == 4) peak = encode_32(keys, codes, count, shift, (int32_t)lowest, (int32_t)most);
    if (width == 8) peak = encode_64(keys, codes, count, shift, lowest, most);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(peak);
}

static PyObject *count_codes(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (!takes("count_codes", given, 4)) return NULL;
    const uint8_t *codes = PyLong_AsVoidPtr(arguments[0]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[1]), found;
    long first = PyLong_AsLong(arguments[2]), last = PyLong_AsLong(arguments[3]);
    if (PyErr_Occurred() || !in_memory(count, codes, codes)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    found = count_between(codes, count, (uint8_t)first, (uint8_t)(last - first));
    Py_END_ALLOW_THREADS
    return PyLong_FromSsize_t(found);
}

static PyObject *find_code(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (!takes("find_code", given, 5)) return NULL;
    const uint8_t *codes = PyLong_AsVoidPtr(arguments[0]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[1]), room = PyLong_AsSsize_t(arguments[4]), found;
    long code = PyLong_AsLong(arguments[2]);
    int64_t *places = PyLong_AsVoidPtr(arguments[3]);
    if (PyErr_Occurred() || !in_memory(room, codes, places)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    found = room > 0 ? find(codes, count, (uint8_t)code, places, room) : 0;
    Py_END_ALLOW_THREADS
    return PyLong_FromSsize_t(found);
}

static PyObject *flag_codes(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    if (!takes("flag_codes", given, 4)) return NULL;
    uint8_t *codes = PyLong_AsVoidPtr(arguments[0]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[1]), ties = PyLong_AsSsize_t(arguments[3]);
    long code = PyLong_AsLong(arguments[2]);
    if (PyErr_Occurred() || !in_memory(count, codes, codes)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    flag(codes, count, (uint8_t)code, ties);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL,
     "encode(keys, codes, count, width, shift, lowest, most)\n\n"
     "Write the code of each key of `width` bytes at address `keys`, its sign left out, to address `codes`:\n"
     "`key >> shift`, at least `lowest` and at most `most`, less `lowest`, and 1. The largest key."},
    {"count_codes", (PyCFunction)(void (*)(void))count_codes, METH_FASTCALL,
     "count_codes(codes, count, first, last)\n\nHow many codes at address `codes` lie from `first` to `last`."},
    {"find_code", (PyCFunction)(void (*)(void))find_code, METH_FASTCALL,
     "find_code(codes, count, code, places, room)\n\n"
     "Write the indices of `code`, of 8 bytes each, to address `places`, at most `room` of them. How many."},
    {"flag_codes", (PyCFunction)(void (*)(void))flag_codes, METH_FASTCALL,
     "flag_codes(codes, count, code, ties)\n\n"
     "Codes become 1 above `code`, and where they equal it after the first `ties` such; 0 elsewhere."},
    {NULL, NULL, 0, NULL},
};

int add_codes(PyObject *module) { return PyModule_AddFunctions(module, methods); }
