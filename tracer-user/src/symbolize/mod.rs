//! Names for addresses. The only folder that names blazesym.
