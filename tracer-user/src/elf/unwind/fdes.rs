//! The descriptions of functions (FDEs), in the order of their addresses, evaluated into rules.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, FrameDescriptionEntry, UnwindContext,
    UnwindOffset, UnwindSection,
};
use tracer_common::unwind::row::Rule;

use super::{TableStats, pages::PageWriter, rule::rule, section::Bytes};

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
    /// Where the description is in the section.
    offset: usize,
}

/// Hands the rules for the code in `text` to `pages`, in the order of addresses.
///
/// A description ends where the next one begins; of those that begin at the same address, the section's first counts.
pub(super) fn convert<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    text: Range<u64>,
    pages: &mut PageWriter,
) {
    let mut cies = Cies(Vec::new());
    let extents = extents(section, bases, &text, &mut cies, &mut pages.stats);
    let mut context = UnwindContext::new();
    for (index, extent) in extents.iter().enumerate() {
        let next = extents.get(index + 1).map_or(text.end, |next| next.start);
        let code = extent.start..extent.end.min(next);
        let offset = S::Offset::from(extent.offset);
        let fde = section.fde_from_offset(bases, offset, |section, bases, offset| {
            cies.get(section, bases, offset)
        });
        let whole =
            fde.is_ok_and(|fde| evaluate(section, bases, &fde, &code, &mut context, pages).is_ok());
        if whole {
            pages.stats.fdes += 1;
        } else {
            pages.stats.malformed += 1;
        }
        pages.push(code.end, Rule::NO_INFO);
    }
}

/// The rules of one description, cut to `code`. What follows an instruction that cannot be read is unsupported.
fn evaluate<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Bytes<'data>>,
    code: &Range<u64>,
    context: &mut UnwindContext<usize>,
    pages: &mut PageWriter,
) -> gimli::Result<()> {
    let mut reached = code.start;
    let mut evaluate = || {
        let mut rows = fde.rows(section, bases, context)?;
        while let Some(row) = rows.next_row()? {
            if row.start_address() >= code.end {
                break;
            }
            if row.start_address() == row.end_address() {
                continue;
            }
            let rule = rule(section, row).unwrap_or(Rule::UNSUPPORTED);
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

/// What the descriptions are for, in order.
fn extents<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    text: &Range<u64>,
    cies: &mut Cies<'data>,
    stats: &mut TableStats,
) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut entries = section.entries(bases);
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
            offset: fde.offset(),
        };
        if extent.start < text.start || extent.start >= extent.end || extents.len() == MAX_FDES {
            stats.ignored += 1;
            continue;
        }
        extents.push(extent);
    }
    extents.sort_unstable_by_key(|extent| (extent.start, extent.offset));
    extents.dedup_by_key(|extent| extent.start);
    extents
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
