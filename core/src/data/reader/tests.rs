use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::*;
use crate::data::{Dtype, resolve};
use crate::error::Kind;

mod fetched;

/// Sample n is the item n as uint32, twice; `counts` samples per file.
fn tokens(counts: &[u64]) -> (TempDir, DatasetSpec) {
    let folder = TempDir::new().unwrap();
    let mut next = 0u32;
    for (number, count) in counts.iter().enumerate() {
        let items = (next..next + *count as u32).flat_map(|item| [item, item]);
        let bytes: Vec<u8> = items.flat_map(u32::to_le_bytes).collect();
        fs::write(folder.path().join(format!("{number:03}.bin")), bytes).unwrap();
        next += *count as u32;
    }
    let spec = registered(folder.path(), Format::Tokens { dtype: Dtype::Uint32, sample_len: 2 });
    (folder, spec)
}

fn registered(folder: &Path, format: Format) -> DatasetSpec {
    let spec = DatasetSpec { shuffle: true, seed: 1, ..DatasetSpec::new("d", folder, format, 4) };
    resolve(spec, OnDamage::Raise).unwrap().0
}

fn numbers(reader: &Reader, samples: &[u64]) -> Result<Vec<u32>> {
    let Rows::Fixed(bytes) = reader.read(samples)? else { panic!("tokens have one size") };
    Ok(bytes.chunks(8).map(|sample| u32::from_le_bytes(sample[..4].try_into().unwrap())).collect())
}

fn table(reader: &Reader, samples: &[u64]) -> Result<RecordBatch> {
    match reader.read(samples)? {
        Rows::Table(table) => Ok(table),
        Rows::Fixed(_) => panic!("these samples differ in size"),
    }
}

fn texts(table: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = table.column_by_name(column).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match column.as_binary_opt::<i32>() {
        Some(bytes) => bytes.iter().map(|bytes| bytes.map(text)).collect(),
        None => column.as_string::<i32>().iter().map(|line| line.map(str::to_owned)).collect(),
    }
}

/// In all orders that a batch may ask for.
fn orders(samples: u64) -> Vec<Vec<u64>> {
    let forward = (0..samples).collect();
    let scattered = (0..samples).map(|n| n * 71 % samples).collect();
    vec![forward, scattered, vec![5, 5, 6, 4], vec![]]
}

#[test]
fn any_samples_come_back_in_the_order_asked_for() {
    // More files than are held open, one of them empty.
    let mut counts = vec![3; 150];
    counts[7] = 0;
    let (_folder, spec) = tokens(&counts);
    let reader = Reader::new(&spec).unwrap();
    for samples in orders(spec.total_samples) {
        let expected: Vec<u32> = samples.iter().map(|sample| *sample as u32).collect();
        assert_eq!(numbers(&reader, &samples).unwrap(), expected);
    }
}

#[test]
fn arrays_are_read_behind_their_headers() {
    let folder = TempDir::new().unwrap();
    for (name, rows) in [("a", 0..6u16), ("b", 6..13)] {
        let header = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({}, 2), }}\n", rows.len());
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(rows.flat_map(|row| [row, row + 100]).flat_map(u16::to_le_bytes));
        fs::write(folder.path().join(name).with_extension("npy"), bytes).unwrap();
    }
    let spec = registered(folder.path(), Format::Npy { dtype: None, shape: vec![] });
    assert_eq!(spec.format, Format::Npy { dtype: Some(Dtype::Uint16), shape: vec![2] });
    let reader = Reader::new(&spec).unwrap();
    for samples in orders(13) {
        let expected = samples.iter().flat_map(|row| [*row as u16, *row as u16 + 100]);
        let expected: Vec<u8> = expected.flat_map(u16::to_le_bytes).collect();
        assert_eq!(reader.read(&samples).unwrap(), Rows::Fixed(expected));
    }
}

#[test]
fn lines_come_as_they_stand() {
    let folder = TempDir::new().unwrap();
    let line = |n: u64| format!("{{\"n\": {n}, \"text\": \"{}\"}}", "ü".repeat(n as usize));
    fs::write(folder.path().join("a.jsonl"), (0..7).map(|n| line(n) + "\n\n").collect::<String>()).unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    fs::write(folder.path().join("more/b.jsonl"), line(7) + "\r\n" + &line(8)).unwrap();
    let spec = registered(folder.path(), Format::Jsonl);
    let reader = Reader::new(&spec).unwrap();
    for samples in orders(9) {
        let lines = texts(&table(&reader, &samples).unwrap(), "line");
        let lines: Vec<String> = lines.into_iter().map(|line| line.unwrap().trim_end().to_owned()).collect();
        assert_eq!(lines, samples.iter().map(|n| line(*n)).collect::<Vec<_>>());
    }
}

fn archive(path: &Path, files: &[(String, String)]) {
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn parts_of_a_sample_are_columns_and_may_be_missing() {
    let folder = TempDir::new().unwrap();
    for file in 0..3u64 {
        let mut files = Vec::new();
        for n in file * 4..(file + 1) * 4 {
            files.push((format!("{n:04}.txt"), format!("sample {n}")));
            if n % 3 == 0 {
                files.push((format!("{n:04}.cls"), n.to_string()));
            }
        }
        archive(&folder.path().join(format!("{file}.tar")), &files);
    }
    let spec = registered(folder.path(), Format::WebDataset { parts: vec![] });
    let reader = Reader::new(&spec).unwrap();
    for samples in orders(12) {
        let table = table(&reader, &samples).unwrap();
        let expected = |text: fn(u64) -> Option<String>| samples.iter().map(|n| text(*n)).collect::<Vec<_>>();
        assert_eq!(texts(&table, "__key__"), expected(|n| Some(format!("{n:04}"))));
        assert_eq!(texts(&table, "txt"), expected(|n| Some(format!("sample {n}"))));
        assert_eq!(texts(&table, "cls"), expected(|n| (n % 3 == 0).then(|| n.to_string())));
    }
    let chosen = registered(folder.path(), Format::WebDataset { parts: vec!["txt".into()] });
    let table = table(&Reader::new(&chosen).unwrap(), &[11]).unwrap();
    assert_eq!((table.num_columns(), texts(&table, "txt")), (2, vec![Some("sample 11".to_owned())]));
}

/// `n`, `text`, and a column that need not be read.
fn parquet(path: &Path, rows: std::ops::Range<i64>, group: usize) {
    let text = |n: i64| (n % 3 != 0).then(|| format!("text {n}"));
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("n", Arc::new(Int64Array::from_iter_values(rows.clone())), false),
        ("text", Arc::new(rows.clone().map(text).collect::<StringArray>()), true),
        ("more", Arc::new(StringArray::from_iter_values(rows.map(|_| "more"))), false),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_of_chosen_columns_come_from_any_row_group() {
    let folder = TempDir::new().unwrap();
    parquet(&folder.path().join("a.parquet"), 0..40, 7);
    parquet(&folder.path().join("b.parquet"), 40..41, 7);
    parquet(&folder.path().join("c.parquet"), 41..100, 100);
    for columns in [vec![], vec!["n".to_owned(), "text".to_owned()]] {
        let width = if columns.is_empty() { 3 } else { 2 };
        let spec = registered(folder.path(), Format::Parquet { columns, schema: String::new() });
        assert_eq!(spec.total_samples, 100);
        let reader = Reader::new(&spec).unwrap();
        for samples in orders(100) {
            let table = table(&reader, &samples).unwrap();
            assert_eq!((table.num_rows(), table.num_columns()), (samples.len(), width));
            let numbers = table.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(numbers, samples.iter().map(|n| *n as i64).collect::<Vec<_>>());
            let text = |n: &u64| (!n.is_multiple_of(3)).then(|| format!("text {n}"));
            assert_eq!(texts(&table, "text"), samples.iter().map(text).collect::<Vec<_>>());
        }
    }
    let spec = DatasetSpec::new(
        "d",
        folder.path(),
        Format::Parquet { columns: vec!["txt".into()], schema: String::new() },
        4,
    );
    let error = resolve(spec, OnDamage::Raise).unwrap_err();
    assert!(error.kind == Kind::Invalid && error.hint.unwrap().contains("text"), "{}", error.message);
}

/// Such files have no sums of their pages: what was flipped inside a value can't be seen.
#[test]
fn a_flipped_byte_of_a_parquet_file_panics_nowhere_and_the_file_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    parquet(&path, 0..20, 10);
    let spec = registered(folder.path(), Format::Parquet { columns: vec![], schema: String::new() });
    let samples: Vec<u64> = (0..20).collect();
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut flipped = whole.clone();
            flipped[at] ^= bit;
            fs::write(&path, flipped).unwrap();
            if let Err(error) = Reader::new(&spec).unwrap().read(&samples) {
                assert!(error.message.contains("a.parquet"), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > whole.len() / 2, "{refused} of {} refused", 3 * whole.len());
}

#[test]
fn a_file_that_became_short_is_corrupt_and_named() {
    let (folder, spec) = tokens(&[5, 5]);
    let reader = Reader::new(&spec).unwrap();
    let path = folder.path().join("001.bin");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = numbers(&reader, &[0, 8, 9]).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("001.bin"), "{error}");
    assert_eq!(numbers(&reader, &[0, 8]).unwrap(), [0, 8]);
}

/// The line that it was cut in would pass for a whole one.
#[test]
fn of_lines_that_were_cut_off_none_is_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    let whole: String = (0..50).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    fs::write(&path, &whole).unwrap();
    let spec = registered(&path, Format::Jsonl);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = table(&Reader::new(&spec).unwrap(), &[0]).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("a.jsonl"), "{error}");
}

#[test]
fn a_damaged_file_is_named_and_left_out_only_when_asked_to() {
    let folder = TempDir::new().unwrap();
    parquet(&folder.path().join("a.parquet"), 0..10, 10);
    parquet(&folder.path().join("b.parquet"), 10..20, 10);
    fs::write(folder.path().join("c.parquet"), b"PAR1 nothing PAR1").unwrap();
    let format = Format::Parquet { columns: vec![], schema: String::new() };
    let spec = DatasetSpec::new("d", folder.path(), format, 4);
    let error = resolve(spec.clone(), OnDamage::Raise).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("c.parquet"), "{error}");
    let (spec, _) = resolve(spec, OnDamage::Quarantine).unwrap();
    assert_eq!(spec.total_samples, 20);
    let [left_out] = spec.quarantined.as_slice() else { panic!("one file is damaged") };
    assert!(left_out.path.ends_with("c.parquet") && left_out.reason.contains("c.parquet"), "{left_out:?}");
    let table = table(&Reader::new(&spec).unwrap(), &[19]).unwrap();
    assert_eq!(table.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0), 19);
}

#[test]
fn files_of_several_kinds_are_no_dataset() {
    let folder = TempDir::new().unwrap();
    parquet(&folder.path().join("a.parquet"), 0..10, 10);
    let other =
        RecordBatch::try_from_iter([("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]).unwrap();
    let file = File::create(folder.path().join("b.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, other.schema(), None).unwrap();
    writer.write(&other).unwrap();
    writer.close().unwrap();
    let spec = DatasetSpec::new(
        "d",
        folder.path(),
        Format::Parquet { columns: vec!["n".into()], schema: String::new() },
        4,
    );
    let error = resolve(spec, OnDamage::Raise).unwrap_err();
    assert!(error.kind == Kind::Invalid, "{error}");
    assert!(error.message.contains("a.parquet") && error.message.contains("b.parquet"), "{error}");
}

#[test]
fn a_file_that_is_gone_is_named() {
    let (folder, spec) = tokens(&[5, 5]);
    let reader = Reader::new(&spec).unwrap();
    fs::remove_file(folder.path().join("000.bin")).unwrap();
    let error = numbers(&reader, &[0]).unwrap_err();
    assert!(error.kind == Kind::NotFound && error.message.contains("000.bin"), "{error}");
}

#[test]
fn a_sample_beyond_the_last_is_refused() {
    let (_folder, spec) = tokens(&[5]);
    let reader = Reader::new(&spec).unwrap();
    assert_eq!(numbers(&reader, &[5]).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn metadata_alone_reads_where_the_files_are_and_says_so_where_not() {
    let (_folder, spec) = tokens(&[5]);
    let bare = DatasetSpec { files: vec![], ..spec.clone() };
    assert_eq!(numbers(&Reader::new(&bare).unwrap(), &[4]).unwrap(), [4]);
    let elsewhere = DatasetSpec { path: "/nowhere".into(), ..bare.clone() };
    assert_eq!(Reader::new(&elsewhere).err().unwrap().kind, Kind::NotFound);
    let foreign = DatasetSpec { format: Format::Named("tfrecord".into()), ..bare };
    assert_eq!(Reader::new(&foreign).err().unwrap().kind, Kind::Invalid);
}
