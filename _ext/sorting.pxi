# Sorting of positions by 64-bit keys, shared by the kernels through `include` (Cython finds no .pxd across mapped folders).

from libc.string cimport memcpy, memset

ctypedef long long i64
ctypedef unsigned long long u64


cdef inline u64 rising(double value) noexcept nogil:
    """A key that sorts as the number does; -0.0 and 0.0 have one key."""
    cdef u64 bits
    value = value + 0.0  # -0.0 becomes 0.0
    memcpy(&bits, &value, sizeof(bits))
    # Negative numbers: more bits, smaller number, so all bits are turned; others: only the sign, to lie above them.
    return ~bits if bits >> 63 else bits | (<u64>1 << 63)


cdef inline u64 rising_int(i64 value) noexcept nogil:
    return <u64>value ^ (<u64>1 << 63)


cdef void sort_by_key(u64[:, ::1] key, i64[:, ::1] place, Py_ssize_t n) noexcept nogil:
    """Sort key[0, :n], rising, and place[0, :n] along with it; stable. Rows 1 are room to work in.

    Few: by insertion. Many: by radix, a byte at a time from the lowest, leaving out bytes that all keys share (scores
    that were float32, groups, whole seconds have many such).
    """
    cdef Py_ssize_t i, j
    cdef int byte, digit
    cdef unsigned int count[8][256]
    cdef unsigned int total, one
    cdef Py_ssize_t source = 0
    cdef u64 moving
    cdef i64 moving_place
    if n <= 40:
        for i in range(1, n):
            moving, moving_place = key[0, i], place[0, i]
            j = i
            while j > 0 and key[0, j - 1] > moving:
                key[0, j], place[0, j] = key[0, j - 1], place[0, j - 1]
                j -= 1
            key[0, j], place[0, j] = moving, moving_place
        return
    memset(count, 0, sizeof(count))
    for i in range(n):
        moving = key[0, i]
        for byte in range(8):
            count[byte][(moving >> (8 * byte)) & 255] += 1
    for byte in range(8):
        if count[byte][(key[0, 0] >> (8 * byte)) & 255] == n:
            continue
        total = 0
        for digit in range(256):
            one = count[byte][digit]
            count[byte][digit] = total
            total += one
        for i in range(n):
            moving = key[source, i]
            digit = (moving >> (8 * byte)) & 255
            j = count[byte][digit]
            count[byte][digit] += 1
            key[1 - source, j], place[1 - source, j] = moving, place[source, i]
        source = 1 - source
    if source == 1:
        for i in range(n):
            key[0, i], place[0, i] = key[1, i], place[1, i]
