//! The descriptions of functions (FDEs), in the order of their addresses, evaluated into rules.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, UnwindContext, UnwindOffset, UnwindSection,
};
use tracer_common::unwind::row::Rule;

use super::{
    TableStats,
    pages::PageWriter,
    rule::rule,
    section::{Bytes, Frames},
};

/// Descriptions that are read, at most. An object of 100 MB has 700,000.
const MAX_FDES: usize = 4_000_000;
/// Size of a common entry (CIE), at most: its instructions are evaluated for each of its descriptions. Compilers' take
/// 20 to 40 bytes.
const MAX_CIE_BYTES: usize = 512;

type Cie<'data> = CommonInformationEntry<Bytes<'data>>;

/// The code that a description is for.
struct Extent {
    start: u64,
    end: u64,
    kind: Kind,
    /// Where the description is in the section.
    offset: usize,
}

/// The section that a description is in. Of two for the same code, the one that is loaded counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Eh,
    Debug,
}

/// Hands the rules for the code in `text` to `pages`, in the order of addresses.
///
/// A description ends where the next one begins; of those that begin at the same address, the section's first counts.
pub(super) fn convert(frames: &Frames<'_>, text: Range<u64>, pages: &mut PageWriter) {
    let mut eh = frames
        .eh
        .as_ref()
        .map(|section| Source::new(section, frames));
    let mut debug = frames
        .debug
        .as_ref()
        .map(|section| Source::new(section, frames));
    let mut extents = Vec::new();
    if let Some(source) = &mut eh {
        source.read(Kind::Eh, &text, &mut extents, &mut pages.stats);
    }
    if let Some(source) = &mut debug {
        source.read(Kind::Debug, &text, &mut extents, &mut pages.stats);
    }
    extents.sort_unstable_by_key(|extent| (extent.start, extent.kind, extent.offset));
    extents.dedup_by_key(|extent| extent.start);
    let mut context = UnwindContext::new();
    for (index, extent) in extents.iter().enumerate() {
        let next = extents.get(index + 1).map_or(text.end, |next| next.start);
        let code = extent.start..extent.end.min(next);
        let evaluated = match (extent.kind, &mut eh, &mut debug) {
            (Kind::Eh, Some(source), _) => {
                source.evaluate(extent.offset, &code, &mut context, pages)
            }
            (Kind::Debug, _, Some(source)) => {
                source.evaluate(extent.offset, &code, &mut context, pages)
            }
            _ => continue,
        };
        if evaluated.is_ok() {
            pages.stats.fdes += 1;
        } else {
            pages.stats.malformed += 1;
        }
        pages.push(code.end, Rule::NO_INFO);
    }
}

/// A section whose descriptions are read.
struct Source<'a, 'data, S> {
    section: &'a S,
    bases: &'a BaseAddresses,
    cies: Cies<'data>,
}

impl<'a, 'data, S: UnwindSection<Bytes<'data>>> Source<'a, 'data, S> {
    fn new(section: &'a S, frames: &'a Frames<'data>) -> Self {
        Self {
            section,
            bases: &frames.bases,
            cies: Cies(Vec::new()),
        }
    }

    /// Adds what the section's descriptions are for.
    fn read(
        &mut self,
        kind: Kind,
        text: &Range<u64>,
        extents: &mut Vec<Extent>,
        stats: &mut TableStats,
    ) {
        let cies = &mut self.cies;
        let mut entries = self.section.entries(self.bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => break,
                Err(_) => {
                    // Where the next entry begins is not known.
                    stats.malformed += 1;
                    break;
                }
            };
            let parsed = partial.parse(|section, bases, offset| cies.get(section, bases, offset));
            let Ok(fde) = parsed else {
                stats.malformed += 1;
                continue;
            };
            let extent = Extent {
                start: fde.initial_address(),
                end: fde.end_address().min(text.end),
                kind,
                offset: fde.offset(),
            };
            let misplaced = extent.start < text.start || extent.start >= extent.end;
            if misplaced || extents.len() == MAX_FDES {
                stats.ignored += 1;
                continue;
            }
            extents.push(extent);
        }
    }

    /// The rules of the description at `offset`, cut to `code`. What follows an instruction that cannot be read is
    /// unsupported.
    fn evaluate(
        &mut self,
        offset: usize,
        code: &Range<u64>,
        context: &mut UnwindContext<usize>,
        pages: &mut PageWriter,
    ) -> gimli::Result<()> {
        let Self {
            section,
            bases,
            cies,
        } = self;
        let fde =
            section.fde_from_offset(bases, S::Offset::from(offset), |section, bases, at| {
                cies.get(section, bases, at)
            })?;
        let mut reached = code.start;
        let mut evaluate = || {
            let mut rows = fde.rows(*section, bases, context)?;
            while let Some(row) = rows.next_row()? {
                if row.start_address() >= code.end {
                    break;
                }
                if row.start_address() == row.end_address() {
                    continue;
                }
                let rule = rule(*section, row).unwrap_or(Rule::UNSUPPORTED);
                pages.push(row.start_address(), rule);
                reached = row.end_address();
            }
            Ok(())
        };
        let result = evaluate();
        if result.is_err() && reached < code.end {
            pages.push(reached, Rule::UNSUPPORTED);
        }
        result
    }
}

/// The common entries read lately: a linker puts the descriptions of an entry behind one another.
struct Cies<'data>(Vec<(usize, Cie<'data>)>);

impl<'data> Cies<'data> {
    const KEPT: usize = 8;

    fn get<S: UnwindSection<Bytes<'data>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        offset: S::Offset,
    ) -> gimli::Result<Cie<'data>> {
        let position = UnwindOffset::into(offset);
        if let Some((_, cie)) = self.0.iter().find(|(at, _)| *at == position) {
            return Ok(cie.clone());
        }
        let cie = section.cie_from_offset(bases, offset)?;
        if cie.entry_len() > MAX_CIE_BYTES {
            return Err(gimli::Error::UnsupportedOffset);
        }
        if self.0.len() == Self::KEPT {
            self.0.remove(0);
        }
        self.0.push((position, cie.clone()));
        Ok(cie)
    }
}
