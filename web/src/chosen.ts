/** What the user chose or dropped: a file, or a folder with all files in it. */

import type { Source } from "./protocol";
import { message, UserError } from "./tensor";

/** Return the folder that a file field was given. */
export function chosenFolder(files: readonly File[]): Source {
  const [name = "folder"] = files[0]!.webkitRelativePath.split("/");
  return { kind: "folder", name, files: files.map((file) => [file.webkitRelativePath.slice(name.length + 1), file]) };
}

/** Return what was dropped; null if it is neither a file nor a folder. It must be called while the drop is handled. */
export function droppedSource(data: DataTransfer): Promise<Source> | null {
  const item = [...data.items].find(({ kind }) => kind === "file");
  const entry = item?.webkitGetAsEntry() ?? null;
  const file = item?.getAsFile() ?? null;
  if (entry?.isDirectory) return readFolder(entry as FileSystemDirectoryEntry, handleOf(item!));
  return file === null ? null : Promise.resolve({ kind: "file", name: file.name, file });
}

interface DirectoryHandle {
  kind: "directory";
  values(): AsyncIterable<DirectoryHandle | FileHandle>;
  name: string;
}

interface FileHandle {
  kind: "file";
  name: string;
  getFile(): Promise<File>;
}

/** Return the newer kind of handle, which Chrome needs for pages from the disk. */
function handleOf(item: DataTransferItem): Promise<DirectoryHandle | FileHandle | null> | null {
  const newer = item as DataTransferItem & { getAsFileSystemHandle?: () => Promise<DirectoryHandle | FileHandle | null> };
  return newer.getAsFileSystemHandle?.().catch(() => null) ?? null;
}

async function readFolder(entry: FileSystemDirectoryEntry, handle: ReturnType<typeof handleOf>): Promise<Source> {
  const files: [string, File][] = [];
  try {
    const found = await handle;
    if (found?.kind === "directory") await addHandles(found, "", files);
    else await addEntries(entry, "", files);
  } catch (error) {
    throw new UserError(`this browser cannot read the dropped folder (${message(error)}): choose it under "OME-Zarr: a folder, or an address"`);
  }
  return { kind: "folder", name: entry.name, files };
}

async function addHandles(folder: DirectoryHandle, path: string, files: [string, File][]): Promise<void> {
  for await (const handle of folder.values()) {
    if (handle.kind === "directory") await addHandles(handle, `${path}${handle.name}/`, files);
    else files.push([path + handle.name, await handle.getFile()]);
  }
}

async function addEntries(folder: FileSystemDirectoryEntry, path: string, files: [string, File][]): Promise<void> {
  const reader = folder.createReader();
  for (;;) {
    // Each call gives some of the entries, the last one none.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return;
    for (const entry of entries) {
      if (entry.isDirectory) await addEntries(entry as FileSystemDirectoryEntry, `${path}${entry.name}/`, files);
      else files.push([path + entry.name, await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))]);
    }
  }
}
