// SPDX-License-Identifier: Apache-2.0
#include "images/container.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "formats/qcow2.h"
#include "formats/qcow2_disk.h"
#include "formats/vdi.h"
#include "formats/vdi_disk.h"
#include "formats/vhd.h"
#include "formats/vhdx.h"
#include "formats/vmdk.h"
#include "formats/vmdk_disk.h"
#include "images/other_formats.h"

namespace vallum::images {
namespace {

using formats::RandomAccessReader;

std::string Size(uint64_t bytes) { return FormatByteCount(ByteCount::Bytes(bytes)); }

Result<OpenedDisk> OpenQcow2(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const formats::Qcow2Header header, formats::ParseQcow2Header(image));
  RETURN_IF_ERROR(formats::ValidateQcow2(header, image.size()));
  ASSIGN_OR_RETURN(const formats::Qcow2Usage usage, formats::CheckQcow2Tables(image, header));
  OpenedDisk out;
  out.disk = std::make_unique<formats::Qcow2Disk>(image, header);
  out.cluster_size = header.cluster_size();
  out.facts.push_back(fmt::format("qcow2 version {}, clusters of {}, {} data and {} compressed",
                                  header.version, Size(out.cluster_size), usage.data_clusters,
                                  usage.compressed_clusters));
  out.written = usage.data_clusters + usage.compressed_clusters != 0;
  return out;
}

Result<OpenedDisk> OpenVmdk(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(formats::VmdkImage vmdk, formats::ParseVmdk(image));
  OpenedDisk out;
  out.cluster_size = vmdk.cluster_size;
  out.subformat = formats::VmdkSubformatName(vmdk.subformat);
  out.facts.push_back(fmt::format("VMDK {}, grains of {}, {} with data", out.subformat,
                                  Size(vmdk.cluster_size), vmdk.data_grains));
  out.written = vmdk.data_grains != 0;
  out.disk = std::make_unique<formats::VmdkDisk>(image, std::move(vmdk));
  return out;
}

Result<OpenedDisk> OpenVhd(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(formats::VhdImage vhd, formats::ParseVhd(image));
  OpenedDisk out;
  out.cluster_size = vhd.block_size;
  const bool fixed = vhd.type == formats::VhdType::kFixed;
  out.subformat = fixed ? "fixed" : "dynamic";
  out.facts.push_back(fixed ? fmt::format("VHD fixed, {}", Size(vhd.virtual_size))
                            : fmt::format("VHD dynamic, blocks of {}, {} with data",
                                          Size(vhd.block_size), vhd.allocated_blocks));
  out.written = fixed || vhd.allocated_blocks != 0;
  out.disk = std::make_unique<formats::VhdDisk>(image, std::move(vhd));
  return out;
}

Result<OpenedDisk> OpenVhdx(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const formats::VhdxImage vhdx, formats::ParseVhdx(image));
  OpenedDisk out;
  out.disk = std::make_unique<formats::VhdxDisk>(image, vhdx);
  out.cluster_size = vhdx.block_size;
  out.subformat = vhdx.fixed ? "fixed" : "dynamic";
  out.facts.push_back(fmt::format("VHDX {}, blocks of {}, {} with data, sectors of {} bytes",
                                  out.subformat, Size(vhdx.block_size), vhdx.allocated_blocks,
                                  vhdx.logical_sector_size));
  out.written = vhdx.allocated_blocks != 0;
  return out;
}

Result<OpenedDisk> OpenVdi(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const formats::VdiImage vdi, formats::ParseVdi(image));
  OpenedDisk out;
  out.disk = std::make_unique<formats::VdiDisk>(image, vdi);
  out.cluster_size = vdi.cluster_size;
  out.subformat = formats::VdiSubformatName(vdi.subformat);
  out.facts.push_back(fmt::format("VDI {}, blocks of {}, {} with data", out.subformat,
                                  Size(vdi.cluster_size), vdi.data_blocks));
  out.written = vdi.data_blocks != 0;
  return out;
}

// A disk inside an archive: the window that it reads goes with it.
class DiskInWindow final : public RandomAccessReader {
 public:
  static Result<std::unique_ptr<DiskInWindow>> Open(const RandomAccessReader& archive,
                                                    const OvaDisk& member, OpenedDisk& opened) {
    ASSIGN_OR_RETURN(const formats::WindowReader window,
                     formats::WindowReader::Create(archive, member.offset, member.size));
    std::unique_ptr<DiskInWindow> out(new DiskInWindow(window));
    ASSIGN_OR_RETURN(opened, OpenDisk(out->window_, member.format));
    out->disk_ = std::move(opened.disk);
    return out;
  }
  uint64_t size() const override { return disk_->size(); }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    return disk_->ReadAt(offset, out);
  }
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override {
    return disk_->NextData(offset);
  }

 private:
  explicit DiskInWindow(const formats::WindowReader& window) : window_(window) {}
  const formats::WindowReader window_;
  std::unique_ptr<RandomAccessReader> disk_;
};

Result<OpenedDisk> OpenOva(const RandomAccessReader& image) {
  std::vector<std::string> facts;
  ASSIGN_OR_RETURN(const std::vector<OvaDisk> disks, ListOvaDisks(image, facts));
  if (disks.size() != 1) {
    return InvalidInput(fmt::format("the OVA holds {} disks, and an image is one", disks.size()))
        .WithFix("unpack it and import each disk");
  }
  OpenedDisk out;
  ASSIGN_OR_RETURN(out.disk, DiskInWindow::Open(image, disks.front(), out));
  return out;
}

}  // namespace

Result<OpenedDisk> OpenDisk(const RandomAccessReader& image, DeclaredFormat format) {
  switch (format) {
    case DeclaredFormat::kQcow2:
      return OpenQcow2(image);
    case DeclaredFormat::kVmdk:
      return OpenVmdk(image);
    case DeclaredFormat::kVhd:
      return OpenVhd(image);
    case DeclaredFormat::kVhdx:
      return OpenVhdx(image);
    case DeclaredFormat::kVdi:
      return OpenVdi(image);
    case DeclaredFormat::kGpt:
    case DeclaredFormat::kMbr:
    case DeclaredFormat::kRaw: {
      OpenedDisk out;
      ASSIGN_OR_RETURN(formats::WindowReader whole,
                       formats::WindowReader::Create(image, 0, image.size()));
      out.disk = std::make_unique<formats::WindowReader>(whole);
      return out;
    }
    case DeclaredFormat::kOva:
      return OpenOva(image);
    case DeclaredFormat::kIso:
    case DeclaredFormat::kLuks:
    case DeclaredFormat::kKernel:
    case DeclaredFormat::kInitrd:
      break;
  }
  return Internal(std::string(DeclaredFormatName(format)) + " holds no disk to open");
}

}  // namespace vallum::images
