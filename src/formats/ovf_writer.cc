// SPDX-License-Identifier: Apache-2.0
#include "formats/ovf_writer.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace vallum::formats {
namespace {

// As the value of an attribute or as text.
std::string Xml(std::string_view text) {
  std::string out;
  for (const char c : Printable(text, 1000)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string File(std::string_view id, const OvfFile& file) {
  return fmt::format("    <File ovf:id=\"{}\" ovf:href=\"{}\" ovf:size=\"{}\"/>\n", id,
                     Xml(file.href), file.size.value_or(0));
}

std::string Item(int instance, int type, std::string_view name, std::string_view rest) {
  return fmt::format(
      "      <Item><rasd:ElementName>{}</rasd:ElementName><rasd:InstanceID>{}</rasd:InstanceID>"
      "{}<rasd:ResourceType>{}</rasd:ResourceType></Item>\n",
      name, instance, rest, type);
}

std::string Hardware(const OvfExport& machine) {
  const bool efi = machine.firmware == OvfFirmware::kEfi;
  const uint64_t mib = (machine.memory + (1U << 20U) - 1) >> 20U;
  std::string out =
      "    <VirtualHardwareSection>\n      <Info>Virtual hardware</Info>\n"
      "      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName>"
      "<vssd:InstanceID>0</vssd:InstanceID>"
      "<vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>\n";
  out += Item(1, 3, "virtual CPUs",
              fmt::format("<rasd:VirtualQuantity>{}</rasd:VirtualQuantity>", machine.cpus));
  out += Item(2, 4, "memory",
              fmt::format("<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>"
                          "<rasd:VirtualQuantity>{}</rasd:VirtualQuantity>",
                          mib));
  out += Item(3, 20, "SATA controller",
              "<rasd:Address>0</rasd:Address><rasd:ResourceSubType>AHCI</rasd:ResourceSubType>");
  out += Item(4, 17, "disk",
              "<rasd:AddressOnParent>0</rasd:AddressOnParent>"
              "<rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>"
              "<rasd:Parent>3</rasd:Parent>");
  if (machine.vtpm) {
    out += Item(5, 1, "vTPM", "<rasd:ResourceSubType>vmware.vtpm</rasd:ResourceSubType>");
  }
  out += fmt::format(
      "      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"{}\"/>\n",
      efi ? "efi" : "bios");
  for (const char* key : {"bootOptions.efiSecureBootEnabled", "uefi.secureBoot.enabled"}) {
    if (!efi) continue;
    out +=
        fmt::format("      <vmw:Config ovf:required=\"false\" vmw:key=\"{}\" vmw:value=\"{}\"/>\n",
                    key, machine.secure_boot);
  }
  return out + "    </VirtualHardwareSection>\n";
}

std::string OwnSection(const OvfVallum& vallum) {
  std::string out =
      "    <vallum:VallumSection ovf:required=\"false\">\n"
      "      <Info>What Vallum keeps besides</Info>\n";
  if (!vallum.key_set.empty()) {
    out += fmt::format(
        "      <vallum:KeySet vallum:name=\"{}\" vallum:version=\"{}\" vallum:sha256=\"{}\" "
        "vallum:href=\"{}\"/>\n",
        Xml(vallum.key_set), vallum.key_set_version, Xml(vallum.key_set_sha256),
        Xml(vallum.key_set_href));
  }
  if (!vallum.variables_href.empty()) {
    out += fmt::format("      <vallum:Variables vallum:href=\"{}\" vallum:origin=\"{}\"/>\n",
                       Xml(vallum.variables_href), Xml(vallum.variable_origin));
  }
  if (!vallum.tpm_model.empty()) {
    out += fmt::format("      <vallum:Tpm vallum:model=\"{}\" vallum:href=\"{}\"/>\n",
                       Xml(vallum.tpm_model), Xml(vallum.tpm_href));
  }
  return out + "    </vallum:VallumSection>\n";
}

}  // namespace

Result<std::string> WriteOvf(const OvfExport& machine) {
  std::string files = File("file1", machine.disk);
  int number = 2;
  for (const OvfFile& file : machine.files) {
    if (!IsPackageName(file.href)) return InvalidInput("no name in a package: " + file.href);
    files += File(fmt::format("file{}", number++), file);
  }
  if (!IsPackageName(machine.disk.href)) {
    return InvalidInput("no name in a package: " + machine.disk.href);
  }
  const bool efi = machine.firmware == OvfFirmware::kEfi;
  // oVirt: 2 Q35 with SeaBIOS, 3 with OVMF, 4 with OVMF and Secure Boot.
  const int bios_type = !efi ? 2 : machine.secure_boot ? 4 : 3;
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
      "xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" "
      "xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
      "CIM_ResourceAllocationSettingData\" "
      "xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
      "CIM_VirtualSystemSettingData\" "
      "xmlns:vmw=\"http://www.vmware.com/schema/ovf\" xmlns:vallum=\"{}\">\n"
      "  <References>\n{}  </References>\n"
      "  <DiskSection>\n    <Info>Disks</Info>\n"
      "    <Disk ovf:diskId=\"disk1\" ovf:fileRef=\"file1\" ovf:capacity=\"{}\" "
      "ovf:format=\"{}\"/>\n  </DiskSection>\n"
      "  <VirtualSystem ovf:id=\"{}\">\n    <Info>A virtual machine</Info>\n    <Name>{}</Name>\n"
      "    <TrustedService>{}</TrustedService>\n    <BiosType>{}</BiosType>\n"
      "{}{}  </VirtualSystem>\n</Envelope>\n",
      kOvfVallumNamespace, files, machine.disk_capacity, kOvfQcow2Format, Xml(machine.name),
      Xml(machine.name), machine.trusted_service, bios_type, Hardware(machine),
      OwnSection(machine.vallum));
}

}  // namespace vallum::formats
