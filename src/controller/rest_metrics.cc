// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controller/metrics.h"
#include "controller/view.h"
#include "http/message.h"
#include "http/server.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Seconds; the target is a p99 of 5 ms.
const prometheus::Histogram::BucketBoundaries kBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                          0.025,  0.1,   0.5,    2.5};

MetricFamily One(const std::string& name, const std::string& help, MetricType type, double value) {
  MetricFamily family{name, help, type, {}};
  ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
  return family;
}

MetricFamily ByState(const std::string& name, const std::string& help,
                     const std::map<std::string, int>& counts) {
  MetricFamily family{name, help, MetricType::Gauge, {}};
  for (const auto& [state, count] : counts) {
    ClientMetric metric;
    metric.label.push_back({"state", state});
    metric.gauge.value = count;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

// By verdict and by the pool, whose policy it is.
MetricFamily Verdicts(const std::map<std::pair<std::string, std::string>, int>& counts) {
  MetricFamily family{
      "vallum_boot_verdicts", "Instances by pool and boot verdict", MetricType::Gauge, {}};
  for (const auto& [key, count] : counts) {
    ClientMetric metric;
    metric.label = {{"pool", key.first}, {"state", key.second}};
    metric.gauge.value = count;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

MetricFamily ByTrust(const std::map<std::string, int>& counts) {
  MetricFamily family{"vallum_hosts_by_trust", "Hosts by trust level", MetricType::Gauge, {}};
  for (const auto& [level, count] : counts) {
    ClientMetric metric;
    metric.label.push_back({"level", level});
    metric.gauge.value = count;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

void AddResources(const View& view, std::vector<MetricFamily>& out) {
  std::map<std::string, int> hosts;
  std::map<std::string, int> instances;
  std::map<std::pair<std::string, std::string>, int> verdicts;
  int isolated = 0;
  std::map<std::string, int> trust;
  for (const auto& host : view.All<v1::Host>()) {
    ++hosts[v1::HostState_Name(host->status().state())];
    ++trust[v1::TrustLevel_Name(host->status().trust().level())];
  }
  for (const auto& instance : view.All<v1::Instance>()) {
    ++instances[v1::InstancePhase_Name(instance->status().phase())];
    const std::string& pool = instance->spec().pool();
    ++verdicts[{pool.empty() ? "default" : pool,
                v1::BootVerdict_Name(instance->status().boot().measured().verdict())}];
    if (instance->status().isolated()) ++isolated;
  }
  out.push_back(ByState("vallum_hosts", "Hosts by state", hosts));
  out.push_back(ByTrust(trust));
  out.push_back(ByState("vallum_instances", "Instances by phase", instances));
  out.push_back(Verdicts(verdicts));
  out.push_back(One("vallum_instances_isolated",
                    "Instances whose network is off because a boot diverged", MetricType::Gauge,
                    isolated));
  out.push_back(One("vallum_store_revision", "Revision that the view has seen", MetricType::Gauge,
                    static_cast<double>(view.revision())));
  out.push_back(One("vallum_view_healthy", "1 while the view follows the store", MetricType::Gauge,
                    view.healthy() ? 1 : 0));
}

void AddCounters(const Metrics& m, std::vector<MetricFamily>& out) {
  const auto counter = [&](const std::string& name, const std::string& help, uint64_t value) {
    out.push_back(One("vallum_" + name, help, MetricType::Counter, static_cast<double>(value)));
  };
  const auto gauge = [&](const std::string& name, const std::string& help, int64_t value) {
    out.push_back(One("vallum_" + name, help, MetricType::Gauge, static_cast<double>(value)));
  };
  counter("placements_total", "Instances placed on a host", m.placements_total);
  counter("placement_refusals_total", "Attempts to place that found no host",
          m.placement_refusals_total);
  counter("claim_conflicts_total", "Claims that another change came before",
          m.claim_conflicts_total);
  counter("reconciles_total", "Reconciler steps", m.reconciles_total);
  counter("reconcile_errors_total", "Reconciler steps that failed", m.reconcile_errors_total);
  counter("agent_reports_total", "Reports received from agents", m.agent_reports_total);
  counter("enrolments_total", "Hosts enrolled", m.enrolments_total);
  counter("enrolments_refused_total", "Enrolments refused", m.enrolments_refused_total);
  counter("blob_bytes_sent_total", "Image bytes sent to agents", m.blob_bytes_sent_total);
  counter("authentication_failures_total", "Requests with a bad token",
          m.authentication_failures_total);
  counter("evidence_requests_total", "Times that a host was asked for evidence",
          m.evidence_requests_total);
  counter("evidence_missing_total", "Times that a host gave none", m.evidence_missing_total);
  counter("attestations_total", "Times that a host's evidence was judged", m.attestations_total);
  gauge("agent_sessions", "Agents connected", m.agent_sessions);
  gauge("consoles", "Consoles open", m.consoles);
  gauge("reconcile_queue", "Things that the reconciler has yet to look at", m.reconcile_queue);
}

}  // namespace

struct RestMetrics::State {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests = prometheus::BuildCounter()
                                                          .Name("vallum_http_requests_total")
                                                          .Help("Requests by route and status")
                                                          .Register(registry);
  prometheus::Family<prometheus::Histogram>& durations =
      prometheus::BuildHistogram()
          .Name("vallum_http_request_duration_seconds")
          .Help("Time to answer, by method")
          .Register(registry);
};

RestMetrics::RestMetrics() : state_(std::make_unique<State>()) {}
RestMetrics::~RestMetrics() = default;

void RestMetrics::Count(const http::AccessRecord& record) {
  // Only routes of ours become labels, so that a client cannot make labels up.
  const std::string route = record.route.empty() ? "none" : std::string(record.route);
  const std::string method(http::MethodName(record.method));
  state_->requests
      .Add({{"route", route}, {"method", method}, {"status", std::to_string(record.status)}})
      .Increment();
  const double seconds = static_cast<double>(record.duration.count()) / 1e6;
  state_->durations.Add({{"method", method}}, kBuckets).Observe(seconds);
}

std::string RestMetrics::Render(const Metrics& metrics, const View& view,
                                const http::ServerCounters& counters) const {
  std::vector<MetricFamily> families = state_->registry.Collect();
  AddCounters(metrics, families);
  AddResources(view, families);
  families.push_back(One("vallum_http_connections", "Open connections", MetricType::Gauge,
                         static_cast<double>(counters.connections)));
  families.push_back(One("vallum_http_connections_refused_total",
                         "Connections refused because of a limit", MetricType::Counter,
                         static_cast<double>(counters.refused)));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace vallum::controller
