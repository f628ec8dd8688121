// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/clock.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// True when two messages of one type have the same content.
bool SameMessage(const google::protobuf::Message& a, const google::protobuf::Message& b);

// Removes reason and fix: nothing is wrong any more.
void ClearReasonOf(v1::InstanceStatus& status);

google::protobuf::Timestamp ToTimestamp(WallTime time);
WallTime FromTimestamp(const google::protobuf::Timestamp& timestamp);

}  // namespace vallum::agent
