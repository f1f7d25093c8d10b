package worker

import (
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
)

// Rights are the least that the login of a worker needs, for brokers of Kafka 2.8 or newer. Read and Write include
// Describe.
func Rights(cfg config.Config) []connect.Right {
	rights := []connect.Right{
		{Operation: "Read", Resource: "group", Name: cfg.Group.ID, For: "to be a member of the group and to commit offsets"},
		{Operation: "Read", Resource: "topic", Name: cfg.Topics.Events, For: "to read events"},
		{Operation: "Write", Resource: "topic", Name: cfg.Topics.Scores, For: "to write scores"},
		{Operation: "Write", Resource: "topic", Name: cfg.Topics.DeadLetters, For: "to set bad records aside"},
	}
	if cfg.Drift.Enabled {
		for _, name := range []string{cfg.Topics.DriftState, cfg.Topics.DriftAlerts} {
			rights = append(
				rights,
				connect.Right{Operation: "Read", Resource: "topic", Name: name, For: "to take over the state of the drift watch"},
				connect.Right{Operation: "Write", Resource: "topic", Name: name, For: "to keep the state of the drift watch"},
			)
		}
	}
	if cfg.HTTP.Listen != "" {
		rights = append(
			rights,
			connect.Right{Operation: "Read", Resource: "topic", Name: cfg.Topics.Scores, For: "to answer over HTTP for what was scored"},
			connect.Right{Operation: "Write", Resource: "topic", Name: cfg.Topics.Events, For: "to take events over HTTP"},
		)
	}
	if cfg.Topics.Audit != "" {
		rights = append(rights, connect.Right{Operation: "Write", Resource: "topic", Name: cfg.Topics.Audit, For: "to keep what was predicted over HTTP"})
	}
	if cfg.Delivery == config.ExactlyOnce {
		rights = append(rights, connect.Right{
			Operation: "Write", Resource: "transactional-id", Name: transactionalPrefix(cfg) + "-", Prefix: true, For: "to publish in transactions",
		})
	}
	for _, t := range Topics(cfg) {
		if cfg.CreateTopics.Enabled {
			rights = append(rights, connect.Right{Operation: "Create", Resource: "topic", Name: t.Name, For: "to create the topic where it is missing", Optional: true})
		}
		rights = append(rights, connect.Right{Operation: "DescribeConfigs", Resource: "topic", Name: t.Name, For: "to check the topic's settings", Optional: true})
	}
	return rights
}

// RedriveRights are the least that a login needs which sends dead letters again (churnstream dlq).
func RedriveRights(cfg config.Config) []connect.Right {
	return []connect.Right{
		{Operation: "Read", Resource: "topic", Name: cfg.Topics.DeadLetters, For: "to read dead letters"},
		{Operation: "Write", Resource: "topic", Name: cfg.Topics.Events, For: "to send them again"},
		{Operation: "Read", Resource: "group", Name: cfg.Group.ID + "-redrive-", Prefix: true, For: "to keep the position of a job"},
		{Operation: "Write", Resource: "transactional-id", Name: transactionalPrefix(cfg) + "-redrive-", Prefix: true, For: "to send in transactions"},
	}
}

// ProduceRights are the least that a login needs which publishes events (churnstream produce).
func ProduceRights(cfg config.Config) []connect.Right {
	return []connect.Right{{Operation: "Write", Resource: "topic", Name: cfg.Topics.Events, For: "to write events"}}
}
