//! The rows of the measured table of sites, and each rule by itself, on bytes.

use tracer_common::call::CallShape;

use super::*;

const ADDRESS: u64 = 0x1000;

fn point(code: &[u8], shape: CallShape) -> ProbePoint {
    let function = Function {
        code,
        address: ADDRESS,
        size_bytes: code.len() as u64,
    };
    choose(function, shape).unwrap()
}

/// Asserts the site of `code`: its distance, the first word of its instruction, whether it is emulated.
fn check(code: &[u8], shape: CallShape, distance: u64, mnemonic: &str, emulated: bool) {
    let point = point(code, shape);
    assert_eq!(
        (
            point.distance,
            point.instruction.split(' ').next().unwrap(),
            point.emulated,
            point.shape
        ),
        (distance, mnemonic, emulated, shape),
        "{code:x?}"
    );
}

/// Make sure that a function that begins with an emulated instruction is probed at its entry:
/// malloc, calloc and realloc of glibc; calloc, realloc and mallocx of jemalloc; malloc of musl.
#[test]
fn emulated_entry() {
    check(&[0x41, 0x54, 0xc3], CallShape::alloc(0), 0, "push", true);
    check(&[0x55, 0xc3], CallShape::alloc_array(0, 1), 0, "push", true);
    check(&[0xe9, 0, 1, 0, 0], CallShape::alloc(0), 0, "jmp", true);
}

/// Make sure that glibc's free is probed at the `je` behind its test, three bytes in.
#[test]
fn glibc_free() {
    let code = [0x48, 0x85, 0xff, 0x74, 0x10, 0x55, 0xc3];
    check(&code, CallShape::free(0), 3, "je", true);
}

/// Make sure that glibc's memalign is probed at the `je` behind a load, seven bytes in, and that one which tests
/// its alignment (`posix_memalign`) is probed at its push.
#[test]
fn glibc_memalign() {
    let load = [0x48, 0x8b, 0x05, 0, 0, 0, 0]; // mov rax, [rip]
    let mut code = load.to_vec();
    code.extend([0x74, 0x10, 0xc3]);
    check(&code, CallShape::alloc(1), 7, "je", true);
    let mut code = vec![0x4c, 0x8d, 0x46, 0xff, 0x49, 0x89, 0xf1]; // lea r8, [rsi-1]; mov r9, rsi
    code.extend([0x41, 0x55, 0xc3]);
    check(&code, CallShape::alloc_out(0, 2), 7, "push", true);
}

/// Make sure that jemalloc's malloc is probed at the `ja` behind its comparison, and sdallocx ten bytes in.
#[test]
fn jemalloc() {
    let malloc = [0x48, 0x81, 0xff, 0, 0x10, 0, 0, 0x77, 0x10, 0xc3];
    check(&malloc, CallShape::alloc(0), 7, "ja", true);
    let sdallocx = [
        0x48, 0x89, 0xf8, // mov rax, rdi
        0x48, 0x81, 0xfe, 0, 0x10, 0, 0, // cmp rsi, 0x1000
        0x77, 0x10, 0xc3,
    ];
    check(&sdallocx, CallShape::free(0), 10, "ja", true);
}

/// Make sure that jemalloc's free is probed behind a long straight line, since only `rdi` matters to it.
#[test]
fn jemalloc_free() {
    let code = [
        0x48, 0x89, 0xf8, // mov rax, rdi
        0x48, 0x8b, 0x15, 0, 0, 0, 0, // mov rdx, [rip]
        0x48, 0x89, 0xf9, // mov rcx, rdi
        0x48, 0xc1, 0xe8, 0x1a, // shr rax, 26
        0x48, 0x81, 0xe1, 0, 0, 0, 0xc0, // and rcx, -0x40000000
        0x25, 0xf0, 0, 0, 0, // and eax, 0xf0
        0x64, 0x48, 0x03, 0x04, 0x25, 0, 0, 0, 0, // add rax, fs:[0]
        0x48, 0x01, 0xd0, // add rax, rdx
        0x48, 0x3b, 0x88, 0xb0, 1, 0, 0, // cmp rcx, [rax+0x1b0]
        0x0f, 0x85, 0x8a, 0, 0, 0, // jne
        0xc3,
    ];
    check(&code, CallShape::free(0), 48, "jne", true);
}

/// Make sure that tcmalloc's functions are probed at the `jne` behind a comparison in memory.
#[test]
fn tcmalloc() {
    let code = [
        0x48, 0x8b, 0x05, 0, 0, 0, 0, // mov rax, [rip]
        0x48, 0x85, 0xc0, // test rax, rax
        0x75, 0x10, 0xc3,
    ];
    check(&code, CallShape::alloc(0), 10, "jne", true);
    check(&code, CallShape::free(0), 10, "jne", true);
}

/// Make sure that mimalloc's free is probed six bytes in.
#[test]
fn mimalloc_free() {
    let code = [0x48, 0x89, 0xf9, 0x48, 0x85, 0xff, 0x74, 0x5d, 0xc3];
    check(&code, CallShape::free(0), 6, "je", true);
}

/// Make sure that an argument is followed from register to register: mimalloc's malloc has moved its size to the
/// second argument register when it reaches its first jump.
#[test]
fn moved_argument() {
    let code = [
        0x48, 0x8b, 0x05, 0, 0, 0, 0, // mov rax, [rip]
        0x48, 0x89, 0xfe, // mov rsi, rdi
        0x64, 0x48, 0x8b, 0x38, // mov rdi, fs:[rax]
        0x48, 0x81, 0xfe, 0, 4, 0, 0, // cmp rsi, 0x400
        0x77, 0x10, 0xc3,
    ];
    let point = point(&code, CallShape::alloc(0));
    assert_eq!((point.distance, point.emulated), (21, true));
    assert_eq!(point.shape, CallShape::alloc(1));
    // The second argument is gone there, so a function that needs it is probed at its entry.
    check(&code, CallShape::alloc_array(0, 1), 0, "mov", false);
}

/// Make sure that a copy of the lower half of an argument is not taken for the argument.
#[test]
fn half_moved_argument() {
    let code = [
        0x89, 0xfe, // mov esi, edi
        0x31, 0xff, // xor edi, edi
        0x74, 0x10, 0xc3,
    ];
    check(&code, CallShape::alloc(0), 0, "mov", false);
}

/// Make sure that an overwritten argument sends the probe back to the entry, and only where it is read.
#[test]
fn overwritten_argument() {
    let code = [0x48, 0x8b, 0x3f, 0x74, 0x10, 0xc3]; // mov rdi, [rdi]; je
    check(&code, CallShape::free(0), 0, "mov", false);
    check(&code, CallShape::free(1), 3, "je", true);
    let conditional = [0x48, 0x0f, 0x44, 0xfe, 0x74, 0x10, 0xc3]; // cmove rdi, rsi; je
    check(&conditional, CallShape::free(0), 0, "cmove", false);
}

/// Make sure that a function that moves the stack pointer first is probed at its entry.
#[test]
fn moved_stack_pointer() {
    let code = [0x48, 0x83, 0xec, 0x08, 0x74, 0x10, 0xc3]; // sub rsp, 8; je
    check(&code, CallShape::free(0), 0, "sub", false);
    let pushes = [0x6a, 0x01, 0x74, 0x10, 0xc3]; // push 1; je
    check(&pushes, CallShape::free(0), 0, "push", false);
}

/// Make sure that the marker of indirect branch targets is stepped over.
#[test]
fn endbr() {
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
    check(&code, CallShape::alloc(0), 4, "push", true);
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x74, 0x10, 0xc3];
    check(&code, CallShape::free(0), 7, "je", true);
}

/// Make sure that a jump back behind the entry sends the probe back to the entry; one to the entry or behind the
/// site does not.
#[test]
fn jump_back() {
    let back_to = |target: u8| {
        // test rdi, rdi; je; nop; jmp target
        let displacement = target.wrapping_sub(8);
        [0x48, 0x85, 0xff, 0x74, 0x10, 0x90, 0xeb, displacement]
    };
    check(&back_to(3), CallShape::free(0), 0, "test", false);
    check(&back_to(1), CallShape::free(0), 0, "test", false);
    check(&back_to(0), CallShape::free(0), 3, "je", true);
    check(&back_to(5), CallShape::free(0), 3, "je", true);
}

/// Make sure that behind a return or an indirect jump nothing is looked for.
#[test]
fn end_of_the_straight_line() {
    check(
        &[0x48, 0x85, 0xff, 0xc3, 0x55],
        CallShape::free(0),
        0,
        "test",
        false,
    );
    check(
        &[0x31, 0xc0, 0xff, 0xe0, 0x55],
        CallShape::free(0),
        0,
        "xor",
        false,
    );
}

/// Make sure that a function of unknown size, whose jumps cannot be known, is probed at its entry.
#[test]
fn unknown_size() {
    let code = [0x48, 0x85, 0xff, 0x74, 0x10, 0xc3];
    let unknown = |size_bytes| {
        let function = Function {
            code: &code,
            address: ADDRESS,
            size_bytes,
        };
        choose(function, CallShape::free(0)).unwrap()
    };
    for size_bytes in [0, 1_000, MAX_FUNCTION_BYTES + 1, u64::MAX] {
        assert_eq!(unknown(size_bytes).distance, 0);
    }
    assert_eq!(unknown(6).distance, 3);
}

/// Make sure that nothing is looked for farther than 64 bytes from the entry.
#[test]
fn too_far() {
    let mut code = [0x31, 0xc0].repeat(32); // xor eax, eax
    code.push(0x55);
    check(&code, CallShape::free(0), 64, "push", true);
    code.splice(0..0, [0x31, 0xc0]);
    check(&code, CallShape::free(0), 0, "xor", false);
}

/// Make sure that the nop which newer kernels turn into a call is avoided where that would overwrite the red zone.
#[test]
fn nop_above_red_zone() {
    let nop = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    let mut code = nop.to_vec();
    code.push(0xc3);
    check(&code, CallShape::free(0), 0, "nop", true);
    let mut code = vec![0x48, 0x89, 0x7c, 0x24, 0xf8]; // mov [rsp-8], rdi
    code.extend(nop);
    code.extend([0x74, 0x10, 0xc3]);
    check(&code, CallShape::free(0), 10, "je", true);
}

/// Make sure that an entry which the kernel refuses is an error, unless an emulated instruction follows.
#[test]
fn refused_entry() {
    let mut code = vec![0xf0, 0x48, 0xff, 0x06]; // lock inc [rsi]
    code.push(0x55);
    check(&code, CallShape::free(0), 4, "push", true);
    code[4] = 0xc3;
    let function = Function {
        code: &code,
        address: ADDRESS,
        size_bytes: 5,
    };
    assert!(matches!(
        choose(function, CallShape::free(0)),
        Err(SiteError::Refused(_))
    ));
}

/// Make sure that bytes which are no code are an error, whatever they are.
#[test]
fn no_code() {
    for code in [&[][..], &[0x06], &[0x48], &[0x0f]] {
        let function = Function {
            code,
            address: u64::MAX,
            size_bytes: u64::MAX,
        };
        assert_eq!(choose(function, CallShape::free(0)), Err(SiteError::NoCode));
    }
}

/// Make sure that a function which only jumps elsewhere is known as another name for its target.
#[test]
fn forwarding() {
    let target = |code: &[u8]| {
        forwards_to(Function {
            code,
            address: ADDRESS,
            size_bytes: code.len() as u64,
        })
    };
    assert_eq!(target(&[0xe9, 0, 1, 0, 0]), Some(ADDRESS + 0x105));
    assert_eq!(
        target(&[0xf3, 0x0f, 0x1e, 0xfa, 0xeb, 2]),
        Some(ADDRESS + 8)
    );
    assert_eq!(target(&[0x55, 0xe9, 0, 1, 0, 0]), None);
}
