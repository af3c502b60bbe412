//! The catalogue of allocator functions: which names allocate or release, and how they take their arguments.

use tracer_common::call::{CallFlags, CallShape};

use super::AllocatorKind;

/// Where a catalogued name belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    /// The C library's names, and those of its extensions that share them.
    Standard,
    /// C++'s operators, mangled.
    Operator,
    /// A second name that the C library's own functions have; never probed where it is a function of its own.
    Internal,
    /// An allocator's own names, which begin with this prefix.
    Prefixed(&'static str),
}

impl Family {
    /// The allocator that uses the prefix.
    pub(super) fn kind(self) -> Option<AllocatorKind> {
        match self {
            Self::Standard | Self::Operator | Self::Internal => None,
            Self::Prefixed("tc_") => Some(AllocatorKind::Tcmalloc),
            Self::Prefixed("mi_") => Some(AllocatorKind::Mimalloc),
            Self::Prefixed("sn_") => Some(AllocatorKind::Snmalloc),
            Self::Prefixed(_) => Some(AllocatorKind::Jemalloc),
        }
    }
}

/// A catalogued function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Where its name belongs.
    pub(super) family: Family,
    /// How it takes its arguments.
    pub(super) shape: CallShape,
}

/// Looks a symbol up.
pub(super) fn lookup(name: &str) -> Option<Known> {
    let known = |family, shape: Option<CallShape>| shape.map(|shape| Known { family, shape });
    if name.starts_with("_Z") || name.starts_with("__size_returning_new") {
        return known(Family::Operator, operator(name));
    }
    let prefixed = |prefix: &'static str, table: fn(&str) -> Option<CallShape>| {
        let rest = name.strip_prefix(prefix)?;
        known(Family::Prefixed(prefix), table(rest))
    };
    prefixed("mi_", mimalloc)
        .or_else(|| prefixed("tc_", tcmalloc))
        .or_else(|| prefixed("je_", jemalloc))
        .or_else(|| prefixed("_rjem_", jemalloc))
        .or_else(|| prefixed("sn_", snmalloc))
        .or_else(|| {
            let rest = name
                .strip_prefix("__libc_")
                .or_else(|| name.strip_prefix("__"))?;
            known(Family::Internal, standard(rest))
        })
        .or_else(|| known(Family::Standard, jemalloc(name)))
}

fn standard(name: &str) -> Option<CallShape> {
    Some(match name {
        "malloc" | "valloc" | "pvalloc" => CallShape::alloc(0),
        "calloc" => CallShape::alloc_array(0, 1),
        "realloc" => CallShape::realloc(0, 1),
        "reallocf" => CallShape::realloc(0, 1).flagged(CallFlags::FREES_ON_FAILURE),
        "reallocarray" => CallShape::realloc_array(0, 1, 2),
        "posix_memalign" => CallShape::alloc_out(0, 2),
        "aligned_alloc" | "memalign" => CallShape::alloc(1),
        "free" | "cfree" | "free_sized" | "free_aligned_sized" => CallShape::free(0),
        _ => return None,
    })
}

/// C++'s operators: a letter for `new` or `delete`, one for arrays, the parameters; then what tells the
/// overloads apart, which changes neither the size's place nor the pointer's.
fn operator(name: &str) -> Option<CallShape> {
    const PARAMETERS: [&str; 6] = [
        "",
        "RKSt9nothrow_t",
        "St11align_val_t",
        "St11align_val_tRKSt9nothrow_t",
        "m",
        "mSt11align_val_t",
    ];
    if let Some(rest) = name
        .strip_prefix("_Znwm")
        .or_else(|| name.strip_prefix("_Znam"))
    {
        let rest = rest.strip_suffix("12__hot_cold_t").unwrap_or(rest);
        return PARAMETERS[..4]
            .contains(&rest)
            .then_some(CallShape::alloc(0));
    }
    if let Some(rest) = name
        .strip_prefix("_ZdlPv")
        .or_else(|| name.strip_prefix("_ZdaPv"))
    {
        return PARAMETERS.contains(&rest).then_some(CallShape::free(0));
    }
    let rest = name.strip_prefix("__size_returning_new")?;
    matches!(rest, "" | "_hot_cold" | "_aligned" | "_aligned_hot_cold")
        .then_some(CallShape::alloc(0))
}

fn jemalloc(name: &str) -> Option<CallShape> {
    Some(match name {
        "mallocx" => CallShape::alloc(0),
        "rallocx" => CallShape::realloc(0, 1),
        "xallocx" => CallShape::realloc(0, 1).flagged(CallFlags::IN_PLACE),
        "dallocx" | "sdallocx" => CallShape::free(0),
        _ => return standard(name),
    })
}

fn tcmalloc(name: &str) -> Option<CallShape> {
    Some(match name {
        "malloc_skip_new_handler"
        | "new"
        | "new_nothrow"
        | "new_aligned"
        | "new_aligned_nothrow"
        | "newarray"
        | "newarray_nothrow"
        | "newarray_aligned"
        | "newarray_aligned_nothrow" => CallShape::alloc(0),
        "delete"
        | "delete_sized"
        | "delete_nothrow"
        | "delete_aligned"
        | "delete_sized_aligned"
        | "delete_aligned_nothrow"
        | "deletearray"
        | "deletearray_sized"
        | "deletearray_nothrow"
        | "deletearray_aligned"
        | "deletearray_sized_aligned"
        | "deletearray_aligned_nothrow" => CallShape::free(0),
        _ => return standard(name),
    })
}

/// mimalloc's names say their parameters: `heap_` puts a heap before the others, `_aligned` and `_at` add some
/// behind them.
fn mimalloc(name: &str) -> Option<CallShape> {
    let (first, name) = name
        .strip_prefix("heap_")
        .map_or((0, name), |name| (1, name));
    // `mi_new` allocates a block, `mi_heap_new` a heap.
    if first == 1 && name.starts_with("new") {
        return None;
    }
    // These two are named like the others and are not.
    if let "aligned_recalloc" | "aligned_offset_recalloc" = name {
        return Some(CallShape::realloc_array(0, 1, 2));
    }
    if let "posix_memalign" | "_posix_memalign" = name {
        return Some(CallShape::alloc_out(0, 2));
    }
    let base = name.strip_suffix("_nothrow").unwrap_or(name);
    let base = base.strip_suffix("_at").unwrap_or(base);
    let base = base.strip_suffix("_aligned").unwrap_or(base);
    let base = base.strip_suffix("_small").unwrap_or(base);
    Some(match base {
        "malloc" | "zalloc" | "valloc" | "pvalloc" | "new" | "alloc_new" | "umalloc"
        | "uzalloc" => CallShape::alloc(first),
        "calloc" | "mallocn" | "new_n" | "alloc_new_n" | "ucalloc" => {
            CallShape::alloc_array(first, first + 1)
        }
        "memalign" | "aligned_alloc" => CallShape::alloc(first + 1),
        // `expand` never moves a block: its failure leaves the block as it was, like that of `realloc`.
        "realloc" | "rezalloc" | "new_realloc" | "expand" | "_expand" | "urealloc" => {
            CallShape::realloc(first, first + 1)
        }
        "reallocf" => CallShape::realloc(first, first + 1).flagged(CallFlags::FREES_ON_FAILURE),
        "reallocn" | "recalloc" | "reallocarray" | "new_reallocn" => {
            CallShape::realloc_array(first, first + 1, first + 2)
        }
        "free" if name == "free" => CallShape::free(0),
        "free" | "free_size" | "cfree" | "ufree" => CallShape::free(0),
        _ => return None,
    })
}

/// snmalloc's functions for Rust's allocator interface take the alignment first.
fn snmalloc(name: &str) -> Option<CallShape> {
    Some(match name {
        "rust_alloc" | "rust_alloc_zeroed" => CallShape::alloc(1),
        "rust_realloc" => CallShape::realloc(0, 3),
        "rust_dealloc" => CallShape::free(0),
        _ => return standard(name),
    })
}

/// What a symbol says about the allocator whose standard names stand in the same object.
pub(super) fn marker(name: &str) -> Option<AllocatorKind> {
    Some(match name {
        // The C libraries come first: a static program may hold one besides another allocator with a prefix.
        "gnu_get_libc_version" | "_int_malloc" | "__malloc_fork_lock_parent" => {
            AllocatorKind::Glibc
        }
        "__libc_malloc_impl" | "__malloc_donate" | "__malloc_alloc_meta" | "__bin_chunk" => {
            AllocatorKind::Musl
        }
        "mi_malloc" | "mi_version" => AllocatorKind::Mimalloc,
        "tc_malloc" | "TCMallocInternalMalloc" | "MallocExtension_GetStats" => {
            AllocatorKind::Tcmalloc
        }
        "mallctl" | "mallocx" => AllocatorKind::Jemalloc,
        "sn_rust_alloc" => AllocatorKind::Snmalloc,
        _ if name.contains("8snmalloc") => AllocatorKind::Snmalloc,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> CallShape {
        lookup(name).unwrap_or_else(|| panic!("{name}")).shape
    }

    /// Make sure that each function of the C library is known by its shape.
    #[test]
    fn standard_names() {
        assert_eq!(shape("malloc"), CallShape::alloc(0));
        assert_eq!(shape("calloc"), CallShape::alloc_array(0, 1));
        assert_eq!(shape("realloc"), CallShape::realloc(0, 1));
        assert_eq!(shape("reallocarray"), CallShape::realloc_array(0, 1, 2));
        assert_eq!(shape("posix_memalign"), CallShape::alloc_out(0, 2));
        assert_eq!(shape("aligned_alloc"), CallShape::alloc(1));
        assert_eq!(shape("memalign"), CallShape::alloc(1));
        assert_eq!(shape("valloc"), CallShape::alloc(0));
        assert_eq!(shape("pvalloc"), CallShape::alloc(0));
        assert_eq!(shape("free"), CallShape::free(0));
        for name in ["cfree", "free_sized", "free_aligned_sized"] {
            assert_eq!(shape(name), CallShape::free(0));
        }
        for name in ["malloc", "free", "mallocx"] {
            assert_eq!(lookup(name).unwrap().family, Family::Standard);
        }
        assert_eq!(lookup("__libc_malloc").unwrap().family, Family::Internal);
        assert_eq!(lookup("__posix_memalign").unwrap().family, Family::Internal);
    }

    /// Make sure that functions which only read, and names that look alike, are not probed.
    #[test]
    fn other_names() {
        for name in [
            "malloc_usable_size",
            "sallocx",
            "nallocx",
            "je_malloc_usable_size",
            "mi_usable_size",
            "mi_malloc_size",
            "mi_malloc_good_size",
            "mi_good_size",
            "tc_malloc_size",
            "mallctl",
            "freeaddrinfo",
            "fallocate",
            "_Znwj",
            "_ZnwmPv",
            "_ZdlPvS_",
            "_ZN3Foo6mallocEm",
            "mi_heap_new",
            "mi_heap_destroy",
            "xmalloc",
            "__",
            "mi_",
            "",
        ] {
            assert_eq!(lookup(name), None, "{name}");
        }
    }

    /// Make sure that every form of C++'s operators is known, and nothing is taken for one.
    #[test]
    fn operators() {
        let forms = [
            "",
            "RKSt9nothrow_t",
            "St11align_val_t",
            "St11align_val_tRKSt9nothrow_t",
        ];
        for form in forms {
            for name in ["_Znwm", "_Znam"] {
                assert_eq!(shape(&format!("{name}{form}")), CallShape::alloc(0));
                assert_eq!(
                    shape(&format!("{name}{form}12__hot_cold_t")),
                    CallShape::alloc(0)
                );
            }
            for name in ["_ZdlPv", "_ZdaPv"] {
                assert_eq!(shape(&format!("{name}{form}")), CallShape::free(0));
            }
        }
        for name in [
            "_ZdlPvm",
            "_ZdaPvm",
            "_ZdlPvmSt11align_val_t",
            "_ZdaPvmSt11align_val_t",
        ] {
            assert_eq!(shape(name), CallShape::free(0));
        }
        assert_eq!(lookup("_Znwm").unwrap().family, Family::Operator);
    }

    /// Make sure that the allocators' own names are known under their prefixes.
    #[test]
    fn prefixed_names() {
        assert_eq!(shape("_rjem_malloc"), CallShape::alloc(0));
        assert_eq!(shape("je_mallocx"), CallShape::alloc(0));
        assert_eq!(shape("_rjem_rallocx"), CallShape::realloc(0, 1));
        assert_eq!(
            shape("xallocx"),
            CallShape::realloc(0, 1).flagged(CallFlags::IN_PLACE)
        );
        assert_eq!(shape("_rjem_sdallocx"), CallShape::free(0));
        assert_eq!(shape("tc_newarray_aligned_nothrow"), CallShape::alloc(0));
        assert_eq!(shape("tc_deletearray_sized"), CallShape::free(0));
        assert_eq!(shape("tc_memalign"), CallShape::alloc(1));
        assert_eq!(shape("sn_rust_realloc"), CallShape::realloc(0, 3));
        let kind = |name| lookup(name).unwrap().family.kind().unwrap();
        assert_eq!(kind("_rjem_malloc"), AllocatorKind::Jemalloc);
        assert_eq!(kind("je_free"), AllocatorKind::Jemalloc);
        assert_eq!(kind("tc_free"), AllocatorKind::Tcmalloc);
        assert_eq!(kind("mi_free"), AllocatorKind::Mimalloc);
    }

    /// Make sure that mimalloc's names are read as its header declares them.
    #[test]
    fn mimalloc_names() {
        assert_eq!(shape("mi_malloc"), CallShape::alloc(0));
        assert_eq!(shape("mi_zalloc_small"), CallShape::alloc(0));
        assert_eq!(shape("mi_malloc_aligned_at"), CallShape::alloc(0));
        assert_eq!(shape("mi_aligned_alloc"), CallShape::alloc(1));
        assert_eq!(shape("mi_new_aligned_nothrow"), CallShape::alloc(0));
        assert_eq!(shape("mi_new_n"), CallShape::alloc_array(0, 1));
        assert_eq!(shape("mi_heap_malloc"), CallShape::alloc(1));
        assert_eq!(
            shape("mi_heap_calloc_aligned"),
            CallShape::alloc_array(1, 2)
        );
        assert_eq!(shape("mi_heap_alloc_new_n"), CallShape::alloc_array(1, 2));
        assert_eq!(
            shape("mi_heap_realloc_aligned_at"),
            CallShape::realloc(1, 2)
        );
        assert_eq!(shape("mi_heap_recalloc"), CallShape::realloc_array(1, 2, 3));
        assert_eq!(
            shape("mi_aligned_offset_recalloc"),
            CallShape::realloc_array(0, 1, 2)
        );
        assert_eq!(shape("mi_posix_memalign"), CallShape::alloc_out(0, 2));
        assert!(
            shape("mi_heap_reallocf")
                .flags
                .contains(CallFlags::FREES_ON_FAILURE)
        );
        assert_eq!(shape("mi_expand"), CallShape::realloc(0, 1));
        assert_eq!(shape("mi_free"), CallShape::free(0));
        assert_eq!(shape("mi_free_size_aligned"), CallShape::free(0));
        assert_eq!(shape("mi_free_aligned"), CallShape::free(0));
    }
}
