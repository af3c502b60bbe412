//! Functions that the user names, found in a program.

use std::process::Command;

use tracer_common::call::{CallFlags, CallShape};

use super::{
    find,
    fixtures::{Folder, Target},
};
use crate::target::{
    AllocatorKind, Discovery,
    user::{UserFunction, UserKind},
};

const POOL: &str = r#"
#include <cstdio>
struct Pool {
    __attribute__((noinline)) void *get(unsigned long size);
    __attribute__((noinline)) void put(void *block);
    __attribute__((noinline)) void put(void *block, int hint);
};
void *Pool::get(unsigned long size) { return (char *)this + size; }
void Pool::put(void *block) { std::printf("%p", block); }
void Pool::put(void *block, int hint) { std::printf("%p %d", block, hint); }
extern "C" __attribute__((noinline)) void *pool_get(Pool *pool, unsigned long size) { return pool->get(size); }
int main() {
    std::puts("ready");
    std::fflush(stdout);
    Pool pool;
    int line = std::getchar();
    if (line == EOF) return 0;
    pool.put(pool.get(line));
    pool.put(pool_get(&pool, line), line);
}
"#;

/// Make sure that functions which the user names in C or C++ are found, and mistakes are answered with names that
/// come close.
#[test]
fn user_functions() {
    let folder = Folder::new();
    let program = folder.compile("c++", POOL, &[]);
    let target = Target::start(&mut Command::new(&program));
    let process = target.process();
    let scan = |named: &[(UserKind, &str)]| {
        let functions = named
            .iter()
            .map(|(kind, text)| UserFunction::parse(*kind, text).unwrap())
            .collect();
        Discovery::new(functions).scan(&process)
    };
    let allocators = scan(&[
        (UserKind::Alloc, "exe:Pool::get(size=2)"),
        (UserKind::Alloc, "program:pool_get(size=2)"),
        (UserKind::Free, "exe:Pool::put(void*)(ptr=2)"),
    ])
    .unwrap();
    assert_eq!(allocators[0].kind, AllocatorKind::User);
    assert_eq!(allocators[0].functions.len(), 3);
    let put = find(&allocators[0], "_ZN4Pool3putEPv");
    assert!(put.shape.is_free() && put.shape.flags.contains(CallFlags::NESTS));
    assert_eq!(
        find(&allocators[0], "pool_get").shape.size,
        CallShape::alloc(1).size
    );
    assert_eq!(allocators[1].kind, AllocatorKind::Glibc);

    let error = |named: &str| scan(&[(UserKind::Alloc, named)]).unwrap_err().to_string();
    let answer = error("exe:pool_gett");
    assert!(
        answer.contains("defines no function pool_gett; did you mean pool_get?"),
        "{answer}"
    );
    let answer = error("exe:Pool::gett(size=2)");
    assert!(answer.contains("did you mean Pool::get"), "{answer}");
    let answer = error("libcc:x");
    assert!(
        answer.contains("no object libcc; did you mean libc.so.6"),
        "{answer}"
    );
    let answer = error("exe:Pool::put");
    assert!(answer.contains("names several functions"), "{answer}");
    // By its path, and a C library's function as the user sees it.
    let path = format!("{}:pool_get(size=2)", program.display());
    assert_eq!(
        scan(&[(UserKind::Alloc, &path)]).unwrap()[0]
            .functions
            .len(),
        1
    );
    let allocators = scan(&[(UserKind::Alloc, "libc.so.6:strdup")]).unwrap();
    assert!(allocators[0].object.ends_with("libc.so.6"));
}
