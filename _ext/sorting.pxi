# Sorting of positions by 64-bit keys, shared by the kernels through `include`, after arrays.pxi.

from libc.string cimport memcpy, memset

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


# Rows of the room that sorting takes: keys and what they belong to, and a second pair to move them to.
cdef enum:
    KEY, PLACE, KEY_SPARE, PLACE_SPARE
    SORT_ROWS


cdef void sort_by_key(u64[:, ::1] room, Py_ssize_t n) noexcept nogil:
    """Sort room[KEY, :n], rising, and room[PLACE, :n] along with it; stable; n < 2^32.

    By radix over the upper four bytes, which tell nearly all numbers apart, then by insertion, which mends the few
    that share them. Where they are not few, by radix over all bytes.
    """
    if n > 40:
        _radix(room, n, 4)
    if not _insertion(room, n, 4 * n + 800):
        _radix(room, n, 0)


cdef bint _insertion(u64[:, ::1] room, Py_ssize_t n, Py_ssize_t moves) noexcept nogil:
    """Insertion sort, given up (False) after so many moves; what it leaves has all equal keys still in their order."""
    cdef Py_ssize_t i, j
    cdef u64 key, place
    for i in range(1, n):
        key, place = room[KEY, i], room[PLACE, i]
        j = i
        while j > 0 and room[KEY, j - 1] > key:
            room[KEY, j], room[PLACE, j] = room[KEY, j - 1], room[PLACE, j - 1]
            j -= 1
        room[KEY, j], room[PLACE, j] = key, place
        moves -= i - j
        if moves < 0:
            return False
    return True


cdef void _radix(u64[:, ::1] room, Py_ssize_t n, int lowest) noexcept nogil:
    """Radix sort by the bytes `lowest`..7, the lowest first; bytes that all keys share are left out."""
    cdef unsigned int count[8][256]
    cdef unsigned int total, one
    cdef Py_ssize_t i, j, source = KEY, target = KEY_SPARE
    cdef int byte, digit
    cdef u64 key
    memset(count, 0, sizeof(count))
    for i in range(n):
        key = room[KEY, i]
        for byte in range(lowest, 8):
            count[byte][(key >> (8 * byte)) & 255] += 1
    for byte in range(lowest, 8):
        if count[byte][(room[KEY, 0] >> (8 * byte)) & 255] == n:
            continue
        total = 0
        for digit in range(256):
            one = count[byte][digit]
            count[byte][digit] = total
            total += one
        for i in range(n):
            key = room[source, i]
            digit = (key >> (8 * byte)) & 255
            j = count[byte][digit]
            count[byte][digit] += 1
            room[target, j], room[target + 1, j] = key, room[source + 1, i]
        source, target = target, source
    if source != KEY:
        for i in range(n):
            room[KEY, i], room[PLACE, i] = room[source, i], room[source + 1, i]
