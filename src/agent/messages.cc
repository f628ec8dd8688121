// SPDX-License-Identifier: Apache-2.0
#include "agent/messages.h"

#include <google/protobuf/util/message_differencer.h>

#include <chrono>

namespace vallum::agent {

bool SameMessage(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  return google::protobuf::util::MessageDifferencer::Equals(a, b);
}

void ClearReasonOf(v1::InstanceStatus& status) {
  status.clear_reason();
  status.clear_fix();
}

google::protobuf::Timestamp ToTimestamp(WallTime time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(seconds.count());
  timestamp.set_nanos(static_cast<int32_t>((since - seconds).count()));
  return timestamp;
}

WallTime FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(
      std::chrono::seconds(timestamp.seconds()) + std::chrono::nanoseconds(timestamp.nanos())));
}

}  // namespace vallum::agent
