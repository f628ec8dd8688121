// SPDX-License-Identifier: Apache-2.0
#include "measure/device_path.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "firmware/guid.h"
#include "formats/text16.h"

namespace vallum::measure {
namespace {

using firmware::Guid;

constexpr uint8_t kEndType = 0x7f;
constexpr uint8_t kEndWhole = 0xff;
constexpr size_t kNodeHeader = 4;
constexpr size_t kMaxHex = 32;

// The fields of one node. Reads past its end give zeros and are remembered, so that a formatter
// reads what it needs and is believed only if all of it was there.
class NodeFields {
 public:
  explicit NodeFields(ByteView data) : cursor_(data) {}

  uint8_t U8() { return Take(cursor_.ReadU8()); }
  uint16_t U16() { return Take(cursor_.ReadU16Le()); }
  uint32_t U32() { return Take(cursor_.ReadU32Le()); }
  uint64_t U64() { return Take(cursor_.ReadU64Le()); }
  std::string GuidText() { return Take(Guid::Read(cursor_)).ToString(); }
  std::string Hex(size_t count) { return ToHex(Take(cursor_.ReadBytes(count))); }
  ByteView Bytes(size_t count) { return Take(cursor_.ReadBytes(count)); }
  void Skip(size_t count) { static_cast<void>(Take(cursor_.ReadBytes(count))); }
  ByteView Rest() { return Take(cursor_.ReadBytes(cursor_.remaining())); }
  bool Complete() const { return complete_; }

 private:
  template <typename T>
  T Take(const Result<T>& value) {
    complete_ &= value.has_value();
    return value.has_value() ? *value : T{};
  }

  ByteCursor cursor_;
  bool complete_ = true;
};

std::string HexTail(ByteView data) {
  return ToHex(data.first(std::min(data.size(), kMaxHex))) + (data.size() > kMaxHex ? "..." : "");
}

std::string Vendor(std::string_view name, NodeFields& f) {
  const std::string guid = f.GuidText();
  const ByteView rest = f.Rest();
  return rest.empty() ? fmt::format("{}({})", name, guid)
                      : fmt::format("{}({},{})", name, guid, HexTail(rest));
}

std::optional<std::string> Hardware(uint8_t subtype, NodeFields& f) {
  switch (subtype) {
    case 1: {
      const unsigned function = f.U8();
      return fmt::format("Pci(0x{:x},0x{:x})", unsigned{f.U8()}, function);
    }
    case 2:
      return fmt::format("PcCard(0x{:x})", unsigned{f.U8()});
    case 3: {
      const uint32_t kind = f.U32();
      const uint64_t begin = f.U64();
      return fmt::format("MemoryMapped(0x{:x},0x{:x},0x{:x})", kind, begin, f.U64());
    }
    case 4:
      return Vendor("VenHw", f);
    case 5:
      return fmt::format("Ctrl(0x{:x})", f.U32());
    case 6: {
      const unsigned kind = f.U8();
      return fmt::format("BMC(0x{:x},0x{:x})", kind, f.U64());
    }
    default:
      return std::nullopt;
  }
}

// An EISA id holds three letters of five bits and a number: 0x0a0341d0 is PNP0A03.
std::string EisaId(uint32_t id) {
  std::string text;
  for (const unsigned shift : {10U, 5U, 0U}) {
    text += static_cast<char>('@' + (id >> shift & 0x1fU));
  }
  return fmt::format("{}{:04X}", Printable(text), id >> 16U);
}

std::optional<std::string> Acpi(uint8_t subtype, NodeFields& f) {
  if (subtype == 3) {
    return fmt::format("AcpiAdr(0x{:x})", f.U32());
  }
  if (subtype != 1) {
    return std::nullopt;
  }
  const uint32_t id = f.U32();
  const uint32_t uid = f.U32();
  constexpr uint32_t kPnp = 0x41d0;
  switch (id) {
    case 0x0a03U << 16U | kPnp:
      return fmt::format("PciRoot(0x{:x})", uid);
    case 0x0a08U << 16U | kPnp:
      return fmt::format("PcieRoot(0x{:x})", uid);
    case 0x0604U << 16U | kPnp:
      return fmt::format("Floppy(0x{:x})", uid);
    case 0x0301U << 16U | kPnp:
      return fmt::format("Keyboard(0x{:x})", uid);
    case 0x0501U << 16U | kPnp:
      return fmt::format("Serial(0x{:x})", uid);
    default:
      return fmt::format("Acpi({},0x{:x})", EisaId(id), uid);
  }
}

std::string Ipv4Text(ByteView address) {
  std::string text;
  for (const std::byte part : address) {
    text += (text.empty() ? "" : ".") + std::to_string(std::to_integer<unsigned>(part));
  }
  return text;
}

std::string Ipv6Text(ByteView address) {
  std::string text;
  for (size_t i = 0; i + 1 < address.size(); i += 2) {
    text += (text.empty() ? "" : ":") + ToHex(address.subspan(i, 2));
  }
  return text;
}

std::string Usb(NodeFields& f) {
  const unsigned port = f.U8();
  return fmt::format("USB(0x{:x},0x{:x})", port, unsigned{f.U8()});
}

std::string Sata(NodeFields& f) {
  const unsigned port = f.U16();
  const unsigned multiplier = f.U16();
  return fmt::format("Sata(0x{:x},0x{:x},0x{:x})", port, multiplier, unsigned{f.U16()});
}

std::string Scsi(NodeFields& f) {
  const unsigned target = f.U16();
  return fmt::format("Scsi(0x{:x},0x{:x})", target, unsigned{f.U16()});
}

std::string Nvme(NodeFields& f) {
  const uint32_t space = f.U32();
  std::string id;
  for (const std::byte b : f.Bytes(8)) {
    id = ToHex(ByteView(&b, 1)) + (id.empty() ? "" : "-") + id;
  }
  return fmt::format("NVMe(0x{:x},{})", space, id);
}

std::string Mac(NodeFields& f) {
  const ByteView address = f.Bytes(32);
  const unsigned kind = f.U8();
  const size_t size = kind <= 1 ? 6 : 32;
  return fmt::format("MAC({},0x{:x})", ToHex(address.first(std::min(size, address.size()))), kind);
}

std::string Ipv4(NodeFields& f) {
  f.Skip(4);
  return fmt::format("IPv4({})", Ipv4Text(f.Bytes(4)));
}

std::string Ipv6(NodeFields& f) {
  f.Skip(16);
  return fmt::format("IPv6({})", Ipv6Text(f.Bytes(16)));
}

std::optional<std::string> Messaging(uint8_t subtype, NodeFields& f) {
  switch (subtype) {
    case 1: {
      const unsigned controller = f.U8();
      const unsigned drive = f.U8();
      return fmt::format("Ata(0x{:x},0x{:x},0x{:x})", controller, drive, unsigned{f.U16()});
    }
    case 2:
      return Scsi(f);
    case 5:
      return Usb(f);
    case 10:
      return Vendor("VenMsg", f);
    case 11:
      return Mac(f);
    case 12:
      return Ipv4(f);
    case 13:
      return Ipv6(f);
    case 17:
      return fmt::format("Unit(0x{:x})", unsigned{f.U8()});
    case 18:
      return Sata(f);
    case 20:
      return fmt::format("Vlan({})", f.U16());
    case 23:
      return Nvme(f);
    case 24:
      return fmt::format("Uri({})", AsText(f.Rest()));
    case 26:
      return fmt::format("SD(0x{:x})", unsigned{f.U8()});
    case 29:
      return fmt::format("eMMC(0x{:x})", unsigned{f.U8()});
    default:
      return std::nullopt;
  }
}

std::string HardDrive(NodeFields& f) {
  constexpr uint8_t kMbr = 1;
  constexpr uint8_t kGpt = 2;
  const uint32_t number = f.U32();
  const uint64_t begin = f.U64();
  const uint64_t size = f.U64();
  const ByteView signature = f.Bytes(16);
  f.Skip(1);
  const uint8_t kind = f.U8();
  if (!f.Complete()) {
    return "";
  }
  ByteCursor cursor(signature);
  if (kind == kGpt) {
    const auto guid = Guid::Read(cursor);
    return fmt::format("HD({},GPT,{},0x{:x},0x{:x})", number,
                       guid.has_value() ? guid->ToString() : "", begin, size);
  }
  if (kind == kMbr) {
    return fmt::format("HD({},MBR,0x{:08x},0x{:x},0x{:x})", number, cursor.ReadU32Le().value_or(0),
                       begin, size);
  }
  return fmt::format("HD({},{},0x{:x},0x{:x})", number, unsigned{kind}, begin, size);
}

std::string CdRom(NodeFields& f) {
  const uint32_t entry = f.U32();
  const uint64_t begin = f.U64();
  return fmt::format("CDROM(0x{:x},0x{:x},0x{:x})", entry, begin, f.U64());
}

std::string Range(NodeFields& f) {
  f.Skip(4);
  const uint64_t begin = f.U64();
  return fmt::format("Offset(0x{:x},0x{:x})", begin, f.U64());
}

std::string RamDisk(NodeFields& f) {
  const uint64_t begin = f.U64();
  const uint64_t end = f.U64();
  const std::string guid = f.GuidText();
  return fmt::format("RamDisk(0x{:x},0x{:x},{},{})", begin, end, unsigned{f.U16()}, guid);
}

std::optional<std::string> Media(uint8_t subtype, NodeFields& f) {
  switch (subtype) {
    case 1:
      return HardDrive(f);
    case 2:
      return CdRom(f);
    case 3:
      return Vendor("VenMedia", f);
    case 4:
      return formats::Utf16LeToUtf8(f.Rest());
    case 5:
      return fmt::format("Media({})", f.GuidText());
    case 6:
      return fmt::format("FvFile({})", f.GuidText());
    case 7:
      return fmt::format("Fv({})", f.GuidText());
    case 8:
      return Range(f);
    case 9:
      return RamDisk(f);
    default:
      return std::nullopt;
  }
}

std::optional<std::string> Bbs(uint8_t subtype, NodeFields& f) {
  if (subtype != 1) {
    return std::nullopt;
  }
  const unsigned kind = f.U16();
  f.Skip(2);
  const std::string_view name = AsText(f.Rest());
  return fmt::format("BBS(0x{:x},{})", kind, name.substr(0, name.find('\0')));
}

std::optional<std::string> Known(uint8_t type, uint8_t subtype, NodeFields& f) {
  switch (type) {
    case 1:
      return Hardware(subtype, f);
    case 2:
      return Acpi(subtype, f);
    case 3:
      return Messaging(subtype, f);
    case 4:
      return Media(subtype, f);
    case 5:
      return Bbs(subtype, f);
    default:
      return std::nullopt;
  }
}

std::string NodeText(uint8_t type, uint8_t subtype, ByteView data) {
  NodeFields fields(data);
  const auto known = Known(type, subtype, fields);
  return known.has_value() && fields.Complete()
             ? *known
             : fmt::format("Path({},{},{})", type, subtype, HexTail(data));
}

}  // namespace

std::string DevicePathToText(ByteView path) {
  std::string text;
  bool first = true;
  while (!path.empty() && text.size() < kMaxDevicePathText) {
    if (path.size() < kNodeHeader) {
      return Printable(text + "... (a node is cut off)", kMaxDevicePathText);
    }
    const auto type = std::to_integer<uint8_t>(path[0]);
    const auto subtype = std::to_integer<uint8_t>(path[1]);
    const size_t size = std::to_integer<size_t>(path[2]) | std::to_integer<size_t>(path[3]) << 8U;
    if (size < kNodeHeader || size > path.size()) {
      return Printable(fmt::format("{}... (a node of {} bytes in {})", text, size, path.size()),
                       kMaxDevicePathText);
    }
    if (type == kEndType) {
      if (subtype == kEndWhole) {
        break;
      }
      text += ",";  // the end of one instance: another path follows
      first = true;
    } else {
      text += first ? "" : "/";
      first = false;
      text += NodeText(type, subtype, path.subspan(kNodeHeader, size - kNodeHeader));
    }
    path = path.subspan(size);
  }
  return Printable(text, kMaxDevicePathText);
}

}  // namespace vallum::measure
