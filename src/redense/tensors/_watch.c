/* watching.py's PlainWatch once more: the same questions and the same answers without an interpreter between them, for a
 * network of many small tensors spends its sparse steps asking. What is not an ordinary tensor goes the way that
 * Python takes.
 */
#include "_kernels.h"
#include <string.h>
#include <structmember.h>

/* A tensor as DLPack describes it (https://dmlc.github.io/dlpack, version 1, all of which begin so), and the part of
 * torch's exchange table that fills it in without a new object. */
typedef struct {
    void *data;
    int32_t device, device_number, dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *stride;
    uint64_t offset;
} Described;

typedef struct {
    struct {
        uint32_t major, minor;
        void *older;
    } header;
    void *allocate, *own, *give;
    int (*describe)(void *tensor, Described *found);
} Exchange;

enum { CPU = 1, MOST = 8 /* dimensions; of more Python takes care */ };

typedef struct {
    PyObject_HEAD
    PyObject *weight, *kept, *mask;
    PyObject *packed; /* kept's bits, and of which version of the mask */
    PyObject *masked; /* a weak reference to the gradient that was zeroed last, or NULL */
    const uint8_t *bits;
    void *seen_address;
    long long bits_version, masked_version, seen_version;
    Py_ssize_t count;
    int dimensions, contiguous, ordinary;
    int64_t shape[MOST], stride[MOST];
} Watch;

static PyObject *tensor_type, *threads_now, *increment_version;
static PyObject *s_grad, *s_version, *s_data_ptr, *s_packed, *s_zero_gradient;
static const Exchange *exchange;
static PyTypeObject watch_type;

/* 0 if all is there; else -1 with an exception set */
static int start(void) {
    PyObject *torch, *part, *table;
    if (!(torch = PyImport_ImportModule("torch"))) return -1;
    tensor_type = PyObject_GetAttrString(torch, "Tensor");
    threads_now = tensor_type ? PyObject_GetAttrString(torch, "get_num_threads") : NULL;
    part = threads_now ? PyObject_GetAttrString(torch, "_C") : NULL;
    Py_DECREF(torch);
    if (!part) return -1;
    increment_version = PyObject_GetAttrString(part, "_increment_version");
    Py_DECREF(part);
    if (!increment_version) return -1;
    if (!(table = PyObject_GetAttrString(tensor_type, "__dlpack_c_exchange_api__"))) return -1;
    exchange = PyCapsule_GetPointer(table, "dlpack_exchange_api");
    Py_DECREF(table);
    if (!exchange) return -1;
    if (exchange->header.major != 1 || !exchange->describe) {
        PyErr_SetString(PyExc_ImportError, "DLPack's exchange table has another version");
        return -1;
    }
    if (!(s_grad = PyUnicode_InternFromString("grad"))) return -1;
    if (!(s_version = PyUnicode_InternFromString("_version"))) return -1;
    if (!(s_data_ptr = PyUnicode_InternFromString("data_ptr"))) return -1;
    if (!(s_packed = PyUnicode_InternFromString("packed"))) return -1;
    if (!(s_zero_gradient = PyUnicode_InternFromString("zero_gradient"))) return -1;
    return PyType_Ready(&watch_type);
}

static PyObject *watch_stamp(PyObject *module, PyObject *tensors);
static PyMethodDef functions[] = {
    {"stamp", watch_stamp, METH_O,
     "stamp(tensors)\n\n"
     "Bytes that are equal for lists of the same tensors in the same versions, while these live."},
    {NULL, NULL, 0, NULL},
};

int add_watch(PyObject *module) {
    if (start()) { /* an older torch, or a table of another kind: watching.py goes on in Python */
        int is_lacking = PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_ImportError) ||
                         PyErr_ExceptionMatches(PyExc_ValueError);
        if (!is_lacking) return -1;
        PyErr_Clear();
        return 0;
    }
    return PyModule_AddFunctions(module, functions) || PyModule_AddObjectRef(module, "Watch", (PyObject *)&watch_type);
}

/* -1 with an exception set where there is none */
static long long version_of(PyObject *tensor) {
    PyObject *version = PyObject_GetAttr(tensor, s_version);
    if (!version) return -1;
    long long value = PyLong_AsLongLong(version);
    Py_DECREF(version);
    return value;
}

/* NULL is an address too, of a tensor without elements; with an exception set it is none */
static void *address_of(PyObject *tensor) {
    PyObject *address = PyObject_CallMethodNoArgs(tensor, s_data_ptr);
    if (!address) return NULL;
    void *pointer = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    return pointer;
}

static int is_contiguous(const Described *found) {
    int64_t apart = 1;
    for (int i = found->dimensions - 1; i >= 0; i--) {
        if (found->shape[i] != 1 && found->stride[i] != apart) return 0;
        apart *= found->shape[i];
    }
    return 1;
}

/* Kept._fits: what the kernel must not get wrong */
static int fits(const Watch *self, const Described *found) {
    if (found->device != CPU || found->dimensions != self->dimensions || !found->data) return 0;
    if (found->lanes != 1 || !found->stride) return 0;
    int alike = 1;
    for (int i = 0; i < self->dimensions; i++) {
        if (found->shape[i] != self->shape[i]) return 0;
        alike &= found->shape[i] == 1 || found->stride[i] == self->stride[i];
    }
    return alike || (self->contiguous && is_contiguous(found));
}

/* The mask's bits as it is now; NULL where Python has them yet to make */
static const uint8_t *bits_of(Watch *self) {
    long long version = version_of(self->mask);
    if (self->bits && version == self->bits_version) return self->bits;
    PyObject *packed = PyErr_Occurred() ? NULL : PyObject_GetAttr(self->kept, s_packed);
    if (packed && PyTuple_CheckExact(packed) && PyTuple_GET_SIZE(packed) == 3) {
        self->bits_version = PyLong_AsLongLong(PyTuple_GET_ITEM(packed, 0));
        self->bits = PyLong_AsVoidPtr(PyTuple_GET_ITEM(packed, 1));
        Py_XSETREF(self->packed, Py_NewRef(packed));
    }
    Py_XDECREF(packed);
    return !PyErr_Occurred() && version == self->bits_version ? self->bits : NULL;
}

static int trust_gradient(Watch *self, PyObject *gradient) {
    long long version = version_of(gradient);
    PyObject *reference = PyErr_Occurred() ? NULL : PyWeakref_NewRef(gradient, NULL);
    if (!reference) return -1;
    Py_XSETREF(self->masked, reference);
    self->masked_version = version;
    return 0;
}

/* As many as torch has now; -1 with an exception set */
static int count_threads(void) {
    PyObject *now = PyObject_CallNoArgs(threads_now);
    long threads = now ? PyLong_AsLong(now) : -1;
    Py_XDECREF(now);
    if (PyErr_Occurred()) return -1;
    return threads < 1 ? 1 : (int)threads;
}

/* 1 if the gradient is zeroed, 0 if it is not one for the kernel, -1 with an exception set */
static int zero_here(Watch *self, PyObject *gradient) {
    Described found;
    if (!self->ordinary || (PyObject *)Py_TYPE(gradient) != tensor_type) return 0;
    if (exchange->describe(gradient, &found)) { /* a sparse one, say */
        PyErr_Clear();
        return 0;
    }
    int width = found.bits / 8, threads = 1;
    if (!fits(self, &found) || (width != 1 && width != 2 && width != 4 && width != 8)) return 0;
    if (self->count > PIECE && (threads = count_threads()) < 0) return -1;
    const uint8_t *bits = bits_of(self);
    if (!bits) return PyErr_Occurred() ? -1 : 0;
    void *elements = (char *)found.data + found.offset;
    PyObject *packed = Py_NewRef(self->packed); /* another thread may pack the mask anew */
    if (self->count > PIECE) {
        Py_BEGIN_ALLOW_THREADS
        zero_elements(elements, bits, self->count, width, threads);
        Py_END_ALLOW_THREADS
    } else
        zero_elements(elements, bits, self->count, width, 1);
    Py_DECREF(packed);
    PyObject *several = PyTuple_Pack(1, gradient);
    PyObject *nothing = several ? PyObject_CallOneArg(increment_version, several) : NULL;
    Py_XDECREF(several);
    if (!nothing) return -1;
    Py_DECREF(nothing);
    return trust_gradient(self, gradient) ? -1 : 1;
}

static PyObject *watch_call(PyObject *object, PyObject *arguments, PyObject *named) {
    Watch *self = (Watch *)object;
    static char *names[] = {"weight", NULL};
    PyObject *weight;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O:Watch", names, &weight)) return NULL;
    PyObject *gradient = PyObject_GetAttr(weight, s_grad), *answer = NULL;
    if (!gradient) return NULL;
    int done = gradient == Py_None ? 1 : zero_here(self, gradient);
    if (done == 1) answer = Py_NewRef(Py_None);
    if (done == 0) answer = PyObject_CallMethodOneArg(object, s_zero_gradient, gradient);
    Py_DECREF(gradient);
    return answer;
}

static int is_begun(const Watch *self) {
    if (!self->weight) PyErr_SetString(PyExc_AttributeError, "a Watch without a weight: __init__ was not called");
    return self->weight != NULL;
}

static PyObject *watch_was_written(Watch *self, PyObject *nothing) {
    if (!is_begun(self)) return NULL;
    long long version = version_of(self->weight);
    void *address = PyErr_Occurred() ? NULL : address_of(self->weight);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(version != self->seen_version || address != self->seen_address);
}

static PyObject *watch_trust_weight(Watch *self, PyObject *nothing) {
    if (!is_begun(self)) return NULL;
    long long version = version_of(self->weight);
    void *address = PyErr_Occurred() ? NULL : address_of(self->weight);
    if (PyErr_Occurred()) return NULL;
    self->seen_version = version;
    self->seen_address = address;
    Py_RETURN_NONE;
}

static PyObject *watch_gradient_was_changed(Watch *self, PyObject *nothing) {
    if (!is_begun(self)) return NULL;
    PyObject *gradient = PyObject_GetAttr(self->weight, s_grad);
    if (!gradient) return NULL;
    int changed = 0;
    if (gradient != Py_None) {
        PyObject *masked = self->masked ? PyObject_CallNoArgs(self->masked) : NULL;
        changed = masked != gradient || version_of(gradient) != self->masked_version;
        Py_XDECREF(masked);
    }
    Py_DECREF(gradient);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(changed);
}

static PyObject *watch_zero_gradient(Watch *self, PyObject *gradient) {
    PyErr_SetString(PyExc_NotImplementedError, "a subclass says how a gradient is zeroed");
    return NULL;
}

static PyObject *watch_trust_gradient(Watch *self, PyObject *gradient) {
    if (trust_gradient(self, gradient)) return NULL;
    Py_RETURN_NONE;
}

/* How many numbers a tuple has, and they; -1 with an exception set, -2 if there are more than MOST */
static int read_numbers(PyObject *tuple, int64_t *numbers) {
    Py_ssize_t count = PyTuple_Size(tuple);
    if (count < 0) return -1;
    if (count > MOST) return -2;
    for (Py_ssize_t i = 0; i < count; i++) numbers[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, i));
    return PyErr_Occurred() ? -1 : (int)count;
}

static int watch_init(PyObject *object, PyObject *arguments, PyObject *named) {
    Watch *self = (Watch *)object;
    static char *names[] = {"weight", "kept", NULL};
    PyObject *weight, *kept, *shape, *stride = NULL, *contiguous = NULL, *count = NULL, *mask = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "OO:Watch", names, &weight, &kept)) return -1;
    if ((shape = PyObject_GetAttrString(kept, "shape")) && (stride = PyObject_GetAttrString(kept, "stride")) &&
        (contiguous = PyObject_GetAttrString(kept, "contiguous")) && (count = PyObject_GetAttrString(kept, "count")) &&
        (mask = PyObject_GetAttrString(kept, "mask"))) {
        Py_XSETREF(self->weight, Py_NewRef(weight));
        Py_XSETREF(self->kept, Py_NewRef(kept));
        Py_XSETREF(self->mask, Py_NewRef(mask));
        Py_CLEAR(self->packed);
        Py_CLEAR(self->masked);
        self->bits = NULL;
        self->seen_version = -1;
        self->seen_address = NULL;
        self->dimensions = read_numbers(shape, self->shape);
        self->ordinary = stride != Py_None && self->dimensions >= 0 &&
                         read_numbers(stride, self->stride) == self->dimensions;
        self->contiguous = contiguous == Py_True;
        self->count = PyLong_AsSsize_t(count);
    }
    Py_XDECREF(shape);
    Py_XDECREF(stride);
    Py_XDECREF(contiguous);
    Py_XDECREF(count);
    Py_XDECREF(mask);
    return PyErr_Occurred() ? -1 : 0;
}

static int watch_traverse(Watch *self, visitproc visit, void *arg) {
    Py_VISIT(self->weight);
    Py_VISIT(self->kept);
    Py_VISIT(self->mask);
    Py_VISIT(self->packed);
    Py_VISIT(self->masked);
    return 0;
}

static int watch_clear(Watch *self) {
    self->bits = NULL;
    Py_CLEAR(self->weight);
    Py_CLEAR(self->kept);
    Py_CLEAR(self->mask);
    Py_CLEAR(self->packed);
    Py_CLEAR(self->masked);
    return 0;
}

static void watch_dealloc(Watch *self) {
    PyObject_GC_UnTrack(self);
    watch_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef members[] = {
    {"weight", T_OBJECT_EX, offsetof(Watch, weight), READONLY, "the held weight"},
    {"kept", T_OBJECT_EX, offsetof(Watch, kept), READONLY, "its mask"},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef watch_methods[] = {
    {"zero_gradient", (PyCFunction)watch_zero_gradient, METH_O, "As watching.PlainWatch."},
    {"was_written", (PyCFunction)watch_was_written, METH_NOARGS, "As watching.PlainWatch."},
    {"gradient_was_changed", (PyCFunction)watch_gradient_was_changed, METH_NOARGS, "As watching.PlainWatch."},
    {"trust_weight", (PyCFunction)watch_trust_weight, METH_NOARGS, "As watching.PlainWatch."},
    {"trust_gradient", (PyCFunction)watch_trust_gradient, METH_O, "As watching.PlainWatch."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject watch_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "redense.tensors._kernels.Watch",
    .tp_doc = "watching.PlainWatch without an interpreter.",
    .tp_basicsize = sizeof(Watch),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = watch_init,
    .tp_dealloc = (destructor)watch_dealloc,
    .tp_traverse = (traverseproc)watch_traverse,
    .tp_clear = (inquiry)watch_clear,
    .tp_call = watch_call,
    .tp_members = members,
    .tp_methods = watch_methods,
};

/* Which objects these are, and in which version each is: what two lists of tensors are compared by. */
static PyObject *watch_stamp(PyObject *module, PyObject *tensors) {
    PyObject *all = PySequence_Tuple(tensors);
    if (!all) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(all);
    PyObject *stamp = PyBytes_FromStringAndSize(NULL, count * 2 * (Py_ssize_t)sizeof(long long));
    long long *written = stamp ? (long long *)PyBytes_AS_STRING(stamp) : NULL;
    for (Py_ssize_t i = 0; stamp && i < count; i++) {
        PyObject *tensor = PyTuple_GET_ITEM(all, i);
        written[2 * i] = (long long)(intptr_t)tensor;
        written[2 * i + 1] = version_of(tensor);
        if (PyErr_Occurred()) Py_CLEAR(stamp);
    }
    Py_DECREF(all);
    return stamp;
}
