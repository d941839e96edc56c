//! The dependency direction between the rooms of core/src, as docs/ARCHITECTURE.md draws it: imports point down only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Height of each room, read from the map's table, so that the map and the code can't part.
fn heights() -> BTreeMap<String, u32> {
    let map =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ARCHITECTURE.md")).unwrap();
    let table = map.split("## Rooms of core/src").nth(1).expect("the map has the table of rooms");
    let table = table.split("\n## ").next().expect("a split has a first part");
    let mut heights = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let height = cells.last().unwrap().trim().parse().expect("the last column is the height");
        for room in cells[0].split(',') {
            let name = room.trim().trim_matches('`').trim_end_matches('/').trim_end_matches(".rs");
            heights.insert(name.to_owned(), height);
        }
    }
    heights
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn is_test(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs").ends_with("tests"))
}

/// The rooms that `text` names with `crate::`, tests apart: those may reach for anything.
fn imports(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let after = code.match_indices("crate::").map(|(at, found)| &code[at + found.len()..]);
    after.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap()).collect()
}

#[test]
fn imports_between_rooms_point_down_only() {
    let heights = heights();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&source).into_iter().filter(|path| is_rust(path) && !is_test(path)) {
        let inside = path.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let Some(own) = heights.get(&room) else {
            wrong.push(format!("{room} is not in the map's table of rooms"));
            continue;
        };
        for other in imports(&fs::read_to_string(&path).unwrap()) {
            let upwards = heights.get(other).is_some_and(|height| height >= own);
            if other != room && upwards && *own > 1 {
                wrong.push(format!("{} imports {other}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "rooms import upwards or sideways:\n{}", wrong.join("\n"));
}
