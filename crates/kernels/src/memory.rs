//! Memory for weights and caches: zero at first, costing nothing until it is touched, and in pages
//! of 2 MiB where the system gives them. With pages of 4 KiB a core reads weights at 18 GB/s here,
//! with large ones at 29.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Of a large page. Mappings start and end on such a boundary.
const PAGE: usize = 2 << 20;
/// Buffers are aligned to cache lines, so that a vector load never straddles two.
const LINE: usize = 64;
/// Small buffers share a mapping of this size, or their pages would be small again.
const SHARED_BYTES: usize = 64 << 20;
const SMALL_BYTES_MAX: usize = SHARED_BYTES / 8;

/// A range of memory from the system, aligned to 2 MiB.
pub struct Pages {
    start: *mut u8,
    len: usize,
    mapping: *mut u8,
    mapped: usize,
}

// SAFETY: `Pages` owns its memory, as a `Box<[u8]>` would.
unsafe impl Send for Pages {}
// SAFETY: likewise; it is written through `&mut` only.
unsafe impl Sync for Pages {}

/// The system has no such range left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no {0} bytes of memory")]
pub struct OutOfMemory(usize);

impl Pages {
    pub fn zeroed(len: usize) -> Result<Pages, OutOfMemory> {
        // One page more than needed, to find a boundary in.
        let mapped =
            len.max(1).checked_next_multiple_of(PAGE).and_then(|len| len.checked_add(PAGE));
        let mapped = mapped.filter(|&mapped| isize::try_from(mapped).is_ok());
        let mapped = mapped.ok_or(OutOfMemory(len))?;
        let mapping = system::map(mapped).ok_or(OutOfMemory(len))?;
        let start = mapping.wrapping_add(mapping.align_offset(PAGE));
        // What does not fill a large page would take all of it.
        system::ask_for_large_pages(start, len / PAGE * PAGE);
        Ok(Pages { start, len, mapping, mapped })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on lie in the mapping, all initialised by the system.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes this the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        system::unmap(self.mapping, self.mapped);
    }
}

/// A buffer of fixed length, zero at first, aligned to 64 bytes.
pub(crate) struct AlignedBytes {
    start: *mut u8,
    len: usize,
    /// Where it lies; nobody else has this part of it.
    _pages: Arc<Pages>,
}

// SAFETY: it owns its part of the pages, as a `Box<[u8]>` would.
unsafe impl Send for AlignedBytes {}
// SAFETY: likewise; it is written through `&mut` only.
unsafe impl Sync for AlignedBytes {}

/// What small buffers are cut from.
static SHARED: Mutex<Mapping> = Mutex::new(Mapping::NONE);

/// The mapping that buffers are cut from at present, and how many of its bytes have been given
/// out. Only its buffers hold it: with the last of them it is unmapped, and the next one begins
/// another.
struct Mapping {
    pages: Weak<Pages>,
    used: usize,
}

impl Mapping {
    const NONE: Mapping = Mapping { pages: Weak::new(), used: 0 };

    /// `len` is at most `SMALL_BYTES_MAX`.
    fn cut(&mut self, len: usize) -> Result<AlignedBytes, OutOfMemory> {
        let taken = len.next_multiple_of(LINE);
        let present = self.pages.upgrade().filter(|_| self.used + taken <= SHARED_BYTES);
        let pages = match present {
            Some(pages) => pages,
            None => {
                let pages = Arc::new(Pages::zeroed(SHARED_BYTES)?);
                *self = Mapping { pages: Arc::downgrade(&pages), used: 0 };
                pages
            }
        };
        let start = pages.start.wrapping_add(self.used);
        self.used += taken;
        Ok(AlignedBytes { start, len, _pages: pages })
    }
}

impl AlignedBytes {
    pub(crate) fn zeroed(len: usize) -> Result<AlignedBytes, OutOfMemory> {
        if len > SMALL_BYTES_MAX {
            let pages = Arc::new(Pages::zeroed(len)?);
            return Ok(AlignedBytes { start: pages.start, len, _pages: pages });
        }
        SHARED.lock().unwrap_or_else(PoisonError::into_inner).cut(len)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on lie in the pages, all initialised by the system, and
        // were given to this buffer alone.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes this the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(all(unix, not(miri)))]
mod system {
    use rustix::mm::{MapFlags, ProtFlags};

    pub(super) fn map(len: usize) -> Option<*mut u8> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches nobody's memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE)
        };
        start.ok().map(<*mut _>::cast)
    }

    pub(super) fn unmap(start: *mut u8, len: usize) {
        // SAFETY: the whole of a mapping made by `map`, whose owner is being dropped.
        let result = unsafe { rustix::mm::munmap(start.cast(), len) };
        debug_assert!(result.is_ok());
    }

    #[cfg(target_os = "linux")]
    pub(super) fn ask_for_large_pages(start: *mut u8, len: usize) {
        // SAFETY: a range within a mapping made by `map`. Advice: a system without them says no.
        let _ =
            unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxHugepage) };
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn ask_for_large_pages(_start: *mut u8, _len: usize) {}
}

/// Plain allocations: slower to read from, and all that Miri knows.
#[cfg(not(all(unix, not(miri))))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len, super::LINE).ok()
    }

    pub(super) fn map(len: usize) -> Option<*mut u8> {
        // SAFETY: the length is not 0.
        let start = unsafe { alloc_zeroed(layout(len)?) };
        (!start.is_null()).then_some(start)
    }

    pub(super) fn unmap(start: *mut u8, len: usize) {
        if let Some(layout) = layout(len) {
            // SAFETY: allocated by `map` with this layout.
            unsafe { dealloc(start, layout) };
        }
    }

    pub(super) fn ask_for_large_pages(_start: *mut u8, _len: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_aligned() {
        let mut pages = Pages::zeroed(3 * PAGE + 17).unwrap();
        assert_eq!(pages.as_slice().len(), 3 * PAGE + 17);
        assert_eq!(pages.as_slice().as_ptr().align_offset(PAGE), 0);
        assert!(pages.as_slice().iter().step_by(4096).all(|&byte| byte == 0));
        pages.as_mut_slice()[3 * PAGE + 16] = 7;
        assert_eq!(pages.as_slice()[3 * PAGE + 16], 7);
        assert!(Pages::zeroed(0).unwrap().as_slice().is_empty());
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        assert_eq!(Pages::zeroed(usize::MAX).err(), Some(OutOfMemory(usize::MAX)));
        assert!(Pages::zeroed(1 << 60).is_err());
    }

    #[test]
    fn a_mapping_lives_as_long_as_its_buffers() {
        let mut mapping = Mapping::NONE;
        let first = mapping.cut(100).unwrap();
        let mut second = mapping.cut(100).unwrap();
        second.as_mut_slice().fill(1);
        assert_eq!(second.as_slice().as_ptr(), first.as_slice().as_ptr().wrapping_add(128));
        drop(first);
        assert_eq!(mapping.pages.strong_count(), 1);
        drop(second);
        assert_eq!(mapping.pages.strong_count(), 0);
        assert!(mapping.cut(200).unwrap().as_slice().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn buffers_do_not_overlap_and_are_zero_whatever_went_before() {
        let lens = [0, 1, 63, 64, 65, 100_000, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1];
        for _ in 0..20 {
            let mut buffers: Vec<AlignedBytes> =
                lens.iter().map(|&len| AlignedBytes::zeroed(len).unwrap()).collect();
            for (index, buffer) in buffers.iter_mut().enumerate() {
                assert_eq!(buffer.as_slice().as_ptr().align_offset(LINE), 0);
                assert!(buffer.as_slice().iter().all(|&byte| byte == 0));
                buffer.as_mut_slice().fill(index as u8 + 1);
            }
            for (index, (buffer, len)) in buffers.iter().zip(lens).enumerate() {
                assert_eq!(buffer.as_slice().len(), len);
                assert!(buffer.as_slice().iter().all(|&byte| byte == index as u8 + 1));
            }
        }
    }
}
