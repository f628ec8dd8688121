// SPDX-License-Identifier: Apache-2.0
#include "agent/image_cache.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "agent/gateway.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

// Upload ids are names of at most 63 characters; a digest has 64.
std::string UploadId(const std::string& sha256) { return "fetch-" + sha256.substr(0, 48); }

Result<Sha256Digest> ParseDigest(const std::string& hex) {
  auto digest = images::ParseSha256(hex);
  if (!digest) {
    return std::move(digest)
        .error()
        .Context("reading image digest '" + Printable(hex, 80) + "'")
        .WithFix("import the image again");
  }
  return digest;
}

}  // namespace

ImageCache::ImageCache(store::BlobStore& blobs, std::filesystem::path directory,
                       const ChannelSlot& channel, images::ConfinedInspector inspector,
                       std::optional<gid_t> readers)
    : blobs_(blobs),
      directory_(std::move(directory)),
      channel_(channel),
      inspector_(std::move(inspector)),
      readers_(readers) {}

Result<std::filesystem::path> ImageCache::Get(const ImageRequest& request, const Progress& progress,
                                              const std::stop_token& stop) {
  RETURN_IF_ERROR(ParseDigest(request.sha256));
  {
    std::unique_lock lock(mutex_);
    if (!done_.wait(lock, stop, [&] { return !busy_.contains(request.sha256); })) {
      return Unavailable("waiting for image " + request.sha256 + " was stopped");
    }
    busy_.insert(request.sha256);
  }
  auto path = [&]() -> Result<std::filesystem::path> {
    RETURN_IF_ERROR(Fetch(request, progress, stop));
    return Check(request);
  }();
  const std::lock_guard lock(mutex_);
  busy_.erase(request.sha256);
  done_.notify_all();
  if (!path) {
    return std::move(path).error().Context("getting image " + request.sha256.substr(0, 12));
  }
  return path;
}

void ImageCache::Hold(const std::string& instance, const std::string& sha256) {
  const std::lock_guard lock(mutex_);
  held_[instance].insert(sha256);
}

bool ImageCache::IsHeld(const std::string& sha256) const {
  return std::ranges::any_of(held_, [&](const auto& entry) {
    return entry.second.contains(sha256) || entry.second.contains("");
  });
}

void ImageCache::Release(const std::string& instance) {
  {
    const std::lock_guard lock(mutex_);
    held_.erase(instance);
  }
  const auto blobs = blobs_.List();
  if (!blobs) {
    return;
  }
  for (const store::BlobInfo& blob : *blobs) {
    {
      const std::lock_guard lock(mutex_);
      // Busy while it goes: a Get of it waits, and then fetches it anew.
      if (IsHeld(blob.digest) || !busy_.insert(blob.digest).second) {
        continue;
      }
      std::erase_if(inspected_,
                    [&](const auto& entry) { return entry.first.starts_with(blob.digest); });
    }
    static_cast<void>(blobs_.Remove(blob.digest));
    const std::lock_guard lock(mutex_);
    busy_.erase(blob.digest);
    done_.notify_all();
  }
}

Result<void> ImageCache::Fetch(const ImageRequest& request, const Progress& progress,
                               const std::stop_token& stop) {
  auto present = blobs_.Open(request.sha256);
  if (present) {
    return Ok();
  }
  if (present.error().code() != ErrorCode::kNotFound) {
    return std::move(present).error();
  }
  const std::string id = UploadId(request.sha256);
  auto upload = blobs_.ResumeUpload(id);
  if (!upload && upload.error().code() == ErrorCode::kNotFound) {
    upload = blobs_.BeginUpload(id);
  }
  if (!upload) {
    return std::move(upload).error();
  }
  RETURN_IF_ERROR(Receive(request, **upload, progress, stop));
  RETURN_IF_ERROR((*upload)->CommitExpecting(request.sha256))
      .context("checking what the controller sent");
  return Ok();
}

Result<void> ImageCache::Receive(const ImageRequest& request, store::BlobUpload& upload,
                                 const Progress& progress, const std::stop_token& stop) {
  grpc::ClientContext context;
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::FetchBlobRequest question;
  question.set_sha256(request.sha256);
  question.set_offset(static_cast<int64_t>(upload.received().bytes()));
  const auto reader = v1::AgentGateway::NewStub(channel_.Get())->FetchBlob(&context, question);
  v1::BlobChunk chunk;
  progress(upload.received().bytes(), request.size);
  while (upload.received().bytes() < request.size && reader->Read(&chunk)) {
    const ByteView data = AsBytes(chunk.data());
    if (data.size() > request.size - upload.received().bytes()) {
      context.TryCancel();
      static_cast<void>(reader->Finish());
      RETURN_IF_ERROR(upload.Abort());
      return Corrupt("the controller sends more than the " + std::to_string(request.size) +
                     " bytes that the image has")
          .WithFix("import the image again");
    }
    if (auto appended = upload.Append(upload.received(), data); !appended) {
      context.TryCancel();
      static_cast<void>(reader->Finish());
      return appended;
    }
    progress(upload.received().bytes(), request.size);
  }
  if (upload.received().bytes() == request.size) {
    context.TryCancel();
    static_cast<void>(reader->Finish());
    return Ok();
  }
  const grpc::Status status = reader->Finish();
  if (status.ok()) {
    return Unavailable("the controller stopped after " + std::to_string(upload.received().bytes()) +
                       " of " + std::to_string(request.size) + " bytes");
  }
  return FromStatus(status, "receiving the image");
}

Result<images::InspectedImage> ImageCache::Inspect(const ImageRequest& request, int fd) {
  ASSIGN_OR_RETURN(const Sha256Digest digest, ParseDigest(request.sha256));
  ASSIGN_OR_RETURN(const images::DeclaredFormat format,
                   images::ParseDeclaredFormat(request.format));
  // What QEMU can be given: everything else was converted when it was imported.
  const std::array usable = {images::DeclaredFormat::kQcow2, images::DeclaredFormat::kGpt,
                             images::DeclaredFormat::kMbr, images::DeclaredFormat::kRaw};
  if (std::ranges::find(usable, format) == usable.end()) {
    return InvalidInput("instances cannot start from images in the format " +
                        std::string(images::DeclaredFormatName(format)))
        .WithFix("import the image again, to be kept as qcow2");
  }
  return inspector_.Inspect(fd, format, digest);
}

// QEMU must see nothing that this host did not look at itself, whatever the controller says.
Result<std::filesystem::path> ImageCache::Check(const ImageRequest& request) {
  ASSIGN_OR_RETURN(const store::OpenBlob blob, blobs_.Open(request.sha256));
  ASSIGN_OR_RETURN(const Sha256Digest digest, ParseDigest(request.sha256));
  const std::string key = request.sha256 + " " + request.format;
  const auto find = [this, &key]() -> const images::InspectedImage* {
    const std::lock_guard lock(mutex_);
    const auto found = inspected_.find(key);
    return found == inspected_.end() ? nullptr : &found->second;
  };
  const images::InspectedImage* handle = find();
  if (handle == nullptr) {
    ASSIGN_OR_RETURN(images::InspectedImage fresh, Inspect(request, blob.fd.get()));
    const std::lock_guard lock(mutex_);
    handle = &inspected_.emplace(key, std::move(fresh)).first->second;
  }
  RETURN_IF_ERROR(handle->CheckUnchanged(digest, blob.size.bytes()));
  if (blob.size.bytes() != request.size) {
    return Corrupt("the image has " + std::to_string(blob.size.bytes()) +
                   " bytes, the controller says " + std::to_string(request.size));
  }
  RETURN_IF_ERROR(Share(blob.path));
  return blob.path;
}

Result<void> ImageCache::Share(const std::filesystem::path& path) const {
  if (!readers_) {
    return Ok();
  }
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && info.st_gid == *readers_) {
    return Ok();  // directories are done before the file
  }
  for (auto directory = path.parent_path(); directory.string().size() >= directory_.string().size();
       directory = directory.parent_path()) {
    if (chown(directory.c_str(), static_cast<uid_t>(-1), *readers_) != 0 ||
        chmod(directory.c_str(), 0710) != 0) {
      return ErrnoError(errno, "share " + directory.string());
    }
  }
  if (chown(path.c_str(), static_cast<uid_t>(-1), *readers_) != 0 ||
      chmod(path.c_str(), 0440) != 0) {
    return ErrnoError(errno, "share " + path.string());
  }
  return Ok();
}

}  // namespace vallum::agent
