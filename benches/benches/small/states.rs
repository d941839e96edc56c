//! States as benches/small/states.py wrote them.

use std::fs;
use std::path::Path;

/// A tensor and its bytes.
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// The tensors of a step whose names begin with `prefix`.
pub fn load(folder: &Path, prefix: &str) -> Vec<Tensor> {
    let data = fs::read(folder.join("data")).expect("states.py wrote this step");
    let table = fs::read(folder.join("tensors.json")).expect("states.py wrote its table");
    let table: serde_json::Value = serde_json::from_slice(&table).expect("the table is JSON");
    let mut tensors = Vec::new();
    let mut rest = &data[..];
    for row in table.as_array().expect("the table is a list") {
        let text = |key: &str| row[key].as_str().expect("a tensor has a name and a dtype").to_owned();
        let shape: Vec<u64> = row["shape"]
            .as_array()
            .expect("a tensor has a shape")
            .iter()
            .flat_map(|size| size.as_u64())
            .collect();
        let dtype = text("dtype");
        let width = if dtype == "bfloat16" { 2 } else { 4 };
        let (bytes, behind) = rest.split_at(width * shape.iter().product::<u64>() as usize);
        rest = behind;
        if text("name").starts_with(prefix) {
            tensors.push(Tensor { name: text("name"), dtype, shape, bytes: bytes.to_vec() });
        }
    }
    assert!(rest.is_empty(), "the table names all of the data");
    tensors
}

pub fn bytes(state: &[Tensor]) -> usize {
    state.iter().map(|tensor| tensor.bytes.len()).sum()
}
