// SPDX-License-Identifier: Apache-2.0
#include "images/test_disks.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "formats/gpt.h"
#include "formats/test_support.h"

namespace vallum::images::testing {

using formats::testing::MakePe;
using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::TempDir;
using formats::testing::WriteFile;

Bytes MakeDisk(const DiskFiles& files) {
  constexpr size_t kSectors = 8 * 2048;
  const TempDir dir;
  MustRun("truncate -s 8M " + dir.File("esp") + " && /usr/sbin/mkfs.fat -F 12 " + dir.File("esp") +
          " && mmd -i " + dir.File("esp") + " ::/EFI ::/EFI/BOOT ::/EFI/debian");
  std::set<std::string> folders = {"/", "/EFI", "/EFI/BOOT", "/EFI/debian"};
  for (const auto& [path, content] : files) {
    std::string folder;
    for (const auto& part : std::filesystem::path(path).parent_path()) {
      folder = (std::filesystem::path(folder) / part).string();
      if (folders.insert(folder).second) MustRun("mmd -i " + dir.File("esp") + " ::" + folder);
    }
    WriteFile(dir.File("f"), content);
    MustRun("mcopy -i " + dir.File("esp") + " " + dir.File("f") + " '::" + path + "'");
  }
  Bytes disk = formats::testing::MakeGptDisk(
      512, 20480, {{kEspFirst, kEspFirst + kSectors - 1, formats::kEspTypeGuid}});
  std::ranges::copy(ReadFile(dir.File("esp")), disk.begin() + kEspFirst * 512);
  return disk;
}

Bytes MakeVendorCert(ByteView allowed, ByteView forbidden) {
  ByteWriter out;
  out.U32Le(static_cast<uint32_t>(allowed.size())).U32Le(static_cast<uint32_t>(forbidden.size()));
  out.U32Le(16).U32Le(static_cast<uint32_t>(16 + allowed.size())).Raw(allowed).Raw(forbidden);
  return std::move(out).Take();
}

// A PE program has long section names in a string table: here one name, where MakePe has none.
Bytes MakeShim(const Bytes& vendor_cert) {
  Bytes file = MakePe({{"/4", vendor_cert}});
  constexpr size_t kCoffHeader = 0x84;
  formats::testing::PutLe32(file, kCoffHeader + 8,
                            static_cast<uint32_t>(file.size()));  // symbol table: no symbols
  formats::testing::PutLe32(file, kCoffHeader + 12, 0);
  ByteWriter names;
  names.U32Le(4 + 13).Raw(AsBytes(std::string(".vendor_cert", 13)));
  const Bytes table = std::move(names).Take();
  file.insert(file.end(), table.begin(), table.end());
  return file;
}

Bytes MakeGrub(const std::string& script) {
  ByteWriter list;
  const auto add = [&](uint32_t type, std::string content) {
    content.resize((content.size() + 8) / 8 * 8);  // at least one zero ends it
    list.U32Le(type).U32Le(static_cast<uint32_t>(content.size() + 8)).Raw(AsBytes(content));
  };
  add(2, script);
  add(3, "/EFI/BOOT");
  ByteWriter section;
  section.U32Le(0x676d696d).U32Le(0).U64Le(24).U64Le(24 + list.size()).Raw(list.bytes());
  return MakePe({{"mods", std::move(section.Zeros(16)).Take()},
                 {".sbat", ToBytes(AsBytes("sbat,1,v,p,1,u\ngrub,9,v,p,1,u\n"))}});
}

Bytes MakeBootManager() {
  return MakePe({{".sdmagic", ToBytes(AsBytes("#### LoaderInfo: systemd-boot 252 ####"))},
                 {".sbat", ToBytes(AsBytes("sbat,1,v,p,1,u\nsystemd-boot,1,v,p,1,u\n"))}});
}

}  // namespace vallum::images::testing
