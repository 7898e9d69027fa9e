// A kernel of any parameters as two functions that Python can call: what it takes, and a launch.
#pragma once
#include <utility>

namespace emulator {

// "f4" a float, "i4" and "u8" integers, "V16" a struct, "*f4" a pointer, "*cf4" one to what is not changed.
template <class T>
struct Code {
    static void write(char*& out) {
        const char* kind = T(0.5) != T(0) ? "f" : T(-1) < T(0) ? "i" : "u";
        out += sprintf(out, "%s%zu", kind, sizeof(T));
    }
};
template <class T>
struct StructCode {
    static void write(char*& out) { out += sprintf(out, "V%zu", sizeof(T)); }
};
template <class T>
struct Chosen {
    static constexpr bool number = __is_enum(T) || (!__is_class(T) && !__is_union(T));
    static void write(char*& out) {
        if constexpr (number)
            Code<T>::write(out);
        else
            StructCode<T>::write(out);
    }
};
template <class T>
struct Chosen<T*> {
    static void write(char*& out) { *out++ = '*', Chosen<T>::write(out); }
};
template <class T>
struct Chosen<const T*> {
    static void write(char*& out) { *out++ = '*', *out++ = 'c', Chosen<T>::write(out); }
};
template <>
struct Chosen<void> {
    static void write(char*& out) { out += sprintf(out, "V0"); }
};
template <>
struct Chosen<bool> {
    static void write(char*& out) { out += sprintf(out, "b1"); }
};

template <class... Parameters>
const char* signature(void (*)(Parameters...)) {
    static char text[1024];
    char* out = text;
    ((Chosen<Parameters>::write(out), *out++ = ' '), ...);
    *out = 0;
    return text;
}

template <class T>
T copied(const void* from) {  // which need not be aligned as T is
    alignas(T) unsigned char bytes[sizeof(T)];
    memcpy(bytes, from, sizeof(T));
    return *reinterpret_cast<T*>(bytes);
}

template <class... Parameters, size_t... I>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
    kernel(copied<Parameters>(arguments[I])...);
}
template <class... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

}  // namespace emulator

#define MINILM_EXPORT extern "C" __attribute__((visibility("default")))
#define MINILM_KERNEL(name)                                                                                          \
    MINILM_EXPORT const char* signature_##name() { return emulator::signature(&name); }                               \
    MINILM_EXPORT const char* launch_##name(const unsigned* grid, const unsigned* block, size_t shared,               \
                                            void** arguments, int descending) {                                                           \
        emulator::body = [](void** arguments) { emulator::call(&name, arguments); };                                 \
        emulator::body_arguments = arguments;                                                                        \
        return emulator::run(grid, block, shared, descending) ? nullptr : emulator::message;                         \
    }
