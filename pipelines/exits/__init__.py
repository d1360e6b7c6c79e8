"""EXITS: instance masks from extreme points (Lee, Hwang, Kwak, CVPR 2024), and its box-only variant."""
